"""The passes of a step with all crops in one pack, against timm's own blocks one crop size after another, in one run.

    python benchmarks/packed.py                              # ViT-S/16, 2x224 + 10x96, batch 4: CPU, one minute
    python benchmarks/packed.py --model vit_base_patch16 --batch 64 --precision bf16      # on a GPU

A round is the teacher's forward pass over the global crops, and the student's forward and backward over all, of the
backbone alone. Unpacked, stochastic depth multiplies by 0 what it drops, and every token goes through the last block.
CPU seconds where it runs on the CPU, so that other work on the machine does not count; else seconds on the wall.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import torch
import yaml
from torch import Tensor

from surgdino.backbone.attention import choose
from surgdino.backbone.vit import Backbone, build_backbone
from surgdino.engine.hardware import keep_freed_memory
from surgdino.paths import share

GOAL = 0.90


def main() -> None:
    """Measure and print."""
    a = parse()
    torch.set_num_threads(a.threads)
    keep_freed_memory()
    device = torch.device("cuda" if torch.cuda.is_available() and a.device != "cpu" else "cpu")
    dtype = torch.bfloat16 if a.precision == "bf16" else torch.float32
    kinds = {name: networks(a, device, packs=name == "packed") for name in ("unpacked", "packed")}
    crops = make_crops(a, kinds["packed"][0], device)
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    for number in range(a.rounds + 1):
        for name in kinds if number % 2 else reversed(kinds):
            taken = timed(lambda pair=kinds[name]: passes(*pair, *crops, dtype), device)
            if number:  # the first round warms up
                seconds[name].append(taken)
    kernel = choose(device, dtype).__name__
    print(f"{a.model}, batch {a.batch}, drop path {a.drop_path}, {device.type} {a.precision}, packed by {kernel}")
    for name, rounds in seconds.items():
        middle = statistics.median(rounds)
        print(f"{name:10} {middle * 1000:9.1f} ms   {a.batch / middle:8.1f} images/s")
    ratios = [one / other for one, other in zip(seconds["packed"], seconds["unpacked"], strict=True)]
    print(f"{'ratio':10} {statistics.median(ratios):9.3f}      goal: at most {GOAL}; median of {a.rounds} rounds")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vit_small_patch16")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--local-count", type=int, default=10)
    parser.add_argument("--drop-path", type=float, default=0.2)
    parser.add_argument("--device", choices=("auto", "cpu"), default="auto")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--threads", type=int, default=1, help="of torch on the CPU")
    parser.add_argument("--rounds", type=int, default=7)
    return parser.parse_args()


def networks(a: argparse.Namespace, device: torch.device, *, packs: bool) -> tuple[Backbone, Backbone]:
    """Student and teacher."""
    model = yaml.safe_load((share("configs") / "model" / f"{a.model}.yaml").read_text(encoding="utf-8"))
    torch.manual_seed(0)
    student = build_backbone(model, drop_path=a.drop_path).to(device).train()
    student.packs = student.packs and packs
    return student, copy.deepcopy(student).eval()


def make_crops(a: argparse.Namespace, backbone: Backbone, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Noise as global and local crops, and masks over 15 % of the patches, as block masking gives on average."""
    side, small = 14 * backbone.patch_size, 6 * backbone.patch_size
    globals_ = torch.randn(2 * a.batch, 3, side, side, device=device)
    locals_ = torch.randn(a.local_count * a.batch, 3, small, small, device=device)
    return globals_, locals_, torch.rand(2 * a.batch, 14 * 14, device=device) < 0.15


def passes(
    student: Backbone, teacher: Backbone, globals_: Tensor, locals_: Tensor, masks: Tensor, dtype: torch.dtype
) -> None:
    """Teacher forward, student forward and backward."""
    wanted = masks.flatten().nonzero().squeeze(1)
    with torch.autocast(globals_.device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
        with torch.no_grad():
            [target] = teacher.forward_crops([(globals_, None)], [wanted])
        seen, local = student.forward_crops([(globals_, masks), (locals_, None)], [wanted, None])
    loss = (seen.patches - target.patches).square().mean() + (seen.cls - target.cls).square().mean()
    (loss + local.cls.square().mean()).backward()
    student.zero_grad(set_to_none=True)


def timed(work: Callable[[], None], device: torch.device) -> float:
    """Seconds of `work`: of this process's CPU time; on CUDA on the wall, its queue emptied before and after."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    finish = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    finish()
    start = clock()
    work()
    finish()
    return clock() - start


if __name__ == "__main__":
    main()
