"""A whole training step against the sum of its forward and backward passes alone, in one run.

    python benchmarks/step.py                                    # ViT-Ti/16 at 96 + 48 px: CPU, about two minutes
    python benchmarks/step.py --model vit_base_patch16 --global-size 224 --local-size 96 --local-count 8 --batch 64

The whole step is the one that `surgdino pretrain` takes: waiting for the loader, moving and normalising the crops,
passes, clipping, AdamW, EMA, logging. The passes are the teacher's forward, the student's forward with the objective,
and the backward, on views that lie on the device already. Blocks of both alternate, so that a busy machine slows both
alike. Frames come from a generated Cholec80-layout set, through the store.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
import yaml

from surgdino.backbone.vit import build_backbone
from surgdino.crops.loader import Batch
from surgdino.crops.multicrop import CropSettings
from surgdino.datasets.card import load_card
from surgdino.datasets.open import open_dataset
from surgdino.datasets.synthetic import write_cholec80
from surgdino.engine.passes import learn, pools, teach
from surgdino.engine.plan import HardwareSettings, TrainPlan, TrainSettings
from surgdino.engine.precision import choose_dtype
from surgdino.engine.session import Session, batches, open_session
from surgdino.engine.train import train_step
from surgdino.engine.views import Views, to_views
from surgdino.frames.store import StoreSettings, build_store
from surgdino.paths import share

GOAL = 1.10


class Seconds(NamedTuple):
    """A step's time on the wall and on the processor."""

    wall: float
    cpu: float


def main() -> None:
    """Measure and print."""
    arguments = parse()
    with tempfile.TemporaryDirectory() as folder:
        session = open_session(plan_of(arguments, Path(folder)), print)
        with session.monitor:
            whole, passes, waited = measure(session, arguments.rounds, arguments.block)
    print(f"{arguments.model}, batch {arguments.batch}, {describe(session)}")
    for name, blocks in (("passes alone", passes), ("whole step", whole)):
        seconds = statistics.median(block.wall for block in blocks)
        print(f"{name:14} {seconds * 1000:9.1f} ms   {arguments.batch / seconds:8.1f} images/s")
    print(f"{'ratio':14} {ratio(whole, passes, 'wall'):9.3f}      goal: below {GOAL}; median of {len(whole)} rounds")
    print(f"{'ratio, CPU':14} {ratio(whole, passes, 'cpu'):9.3f}      CPU seconds of this process alone")
    print(f"{'data wait':14} {waited:9.1%}      of the whole step")


def ratio(whole: list[Seconds], passes: list[Seconds], clock: str) -> float:
    """Median over the rounds of whole step / passes alone."""
    return statistics.median(getattr(w, clock) / getattr(p, clock) for w, p in zip(whole, passes, strict=True))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vit_tiny_patch16")
    parser.add_argument("--method", default="simdinov2")
    parser.add_argument("--augment", default="surgical")
    parser.add_argument("--global-size", type=int, default=96)
    parser.add_argument("--local-size", type=int, default=48)
    parser.add_argument("--local-count", type=int, default=4)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    parser.add_argument("--workers", type=int, default=max(len(os.sched_getaffinity(0)) - 1, 1))
    parser.add_argument("--threads", type=int, default=1, help="of torch on the CPU")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--block", type=int, default=2, help="steps to a block")
    return parser.parse_args()


def plan_of(a: argparse.Namespace, folder: Path) -> TrainPlan:
    """A run over a generated set; the backbone learns from the first step on."""
    write_cholec80(folder / "cholec80", videos=4, seconds=16, size=(426, 240), seed=0)
    manifest = open_dataset(load_card("cholec80"), folder / "cholec80")
    store = build_store(manifest, folder / "store", StoreSettings(fps=2), workers=1, progress=False)
    model = section("model", a.model)
    steps = 2 * (a.rounds + 1) * a.block
    return TrainPlan(
        backbone=build_backbone(model),
        model=model,
        method=section("method", a.method),
        store=store,
        augment=section("augment", a.augment),
        crops=CropSettings(a.global_size, a.local_size, a.local_count),
        train=TrainSettings(steps=steps, batch_size=a.batch, head_warmup_steps=0, probe_frames=0),
        hardware=HardwareSettings(a.device, a.precision, a.workers, a.threads),
        folder=folder / "run",
        progress=False,
    )


def section(group: str, name: str) -> dict:
    """A shipped choice of a configuration group."""
    return yaml.safe_load((share("configs") / group / f"{name}.yaml").read_text(encoding="utf-8"))


def measure(session: Session, rounds: int, block: int) -> tuple[list[Seconds], list[Seconds], float]:
    """A step's time in each round, whole and passes alone; and the share of the whole in which it waited for data."""
    session.plan.folder.mkdir(parents=True, exist_ok=True)
    source = batches(session)
    waits: list[float] = []
    whole_steps(session, source, block, waits)  # to warm up
    waits.clear()
    whole, passes = [], []
    for _ in range(rounds):
        whole.append(timed(session, lambda: whole_steps(session, source, block, waits), block))
        # These come from the loader too, so that its workers take the same share of the machine meanwhile.
        views = [views_of(session, next(source)) for _ in range(block)]
        passes.append(timed(session, lambda v=views: [run_passes(session, view) for view in v], block))
    return whole, passes, sum(waits) / (block * sum(seconds.wall for seconds in whole))


def views_of(session: Session, batch: Batch) -> Views:
    """A batch, normalised on the device."""
    return to_views(batch, session.device, session.plan.model["mean"], session.plan.model["std"])


def whole_steps(session: Session, source: Iterator[Batch], count: int, waits: list[float]) -> None:
    """Take `count` steps; the waits for their batches go to `waits`."""
    for _ in range(count):
        asked = time.perf_counter()
        batch = next(source)
        waits.append(time.perf_counter() - asked)
        train_step(session, batch)


def run_passes(session: Session, views: Views) -> None:
    """Teacher forward, student forward, backward; nothing is updated."""
    targets, _ = teach(session, [views])
    learn(session, [views], targets, pools(session, [views], targets))
    session.optimizer.zero_grad(set_to_none=True)


def timed(session: Session, work: Callable[[], object], steps: int) -> Seconds:
    """What each of `steps` steps in `work` takes, the device's queue emptied before and after."""
    finish = torch.cuda.synchronize if session.device.type == "cuda" else lambda: None
    finish()
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    finish()
    return Seconds((time.perf_counter() - wall) / steps, (time.process_time() - cpu) / steps)


def describe(session: Session) -> str:
    """Crops, machine and precision in a few words."""
    device, crops = session.device, session.plan.crops
    machine = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} thread(s)"
    dtype = str(choose_dtype(session.plan.hardware, device)).removeprefix("torch.")
    return f"2x{crops.global_size} + {crops.local_count}x{crops.local_size}, {machine}, {dtype}"


if __name__ == "__main__":
    main()
