"""A training step on a GPU, loader aside: uncompiled and compiled, packed attention and attention by crop size.

    python benchmarks/gpu.py                                             # ViT-B/16 and ViT-S/16, batch 64, 2x224 + 8x96
    python benchmarks/gpu.py --models vit_large_patch16 --methods simdinov2,dinov2 --batch 32 --profile PROFILES

The product's own step, over and over on one batch in pinned memory, as a loader that is fast enough would hand it over.
A row is a block of steps between two synchronisations, the median of several blocks. MFU is of the card's peak in
bf16 with dense matrices (989 TFLOP/s for H100 and H200), operations counted as `surgdino bench step` counts them. With
--profile, what kernels ran is counted and written there. `benchmarks/roofline.py` says what was to be expected.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice, product
from pathlib import Path
from unittest import mock

import torch
from step import config_of, frames
from torch.profiler import ProfilerActivity, profile

from surgdino.backbone import attention
from surgdino.bench.flops import session_flops
from surgdino.bench.frames import BenchConfig
from surgdino.bench.loop import a_step, bench_session, loading, over_and_over, whole_steps
from surgdino.bench.step import matrix_rate
from surgdino.engine.session import Session
from surgdino.frames.store import FrameStore

PEAK = 989e12
_WARM_UP = 4
_PROFILED = 3


@dataclass(frozen=True)
class Row:
    """Of one way to compute a step: its seconds, images/s, MFU, peak memory, and seconds until the first was done."""

    seconds: float
    images: float
    mfu: float
    memory: float
    first: float
    kernels: float = 0.0
    busy: float = 0.0


def main() -> None:
    """Measure and print."""
    a = parse()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    print(f"a matrix product: {matrix_rate(torch.device('cuda'), torch.bfloat16, 2) / 1e12:.0f} TFLOP/s")
    print("| step | ms | images/s | MFU | peak memory, GiB | kernels | GPU busy | first step, s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        store = frames(Path(folder), a.batch)
        for model, method, compile_, kind in product(a.models, a.methods, a.compile, a.attention):
            name = f"{model}, {method}, {'compiled' if compile_ == 'true' else 'uncompiled'}, {kind}"
            try:
                row = measured(config(a, model, method, compile_ == "true"), store, kind, a, name)
            except Exception as error:  # a table with a hole is better than none
                print(f"| {name} | {type(error).__name__}: {str(error).splitlines()[0][:200]} |", flush=True)
                continue
            print(
                f"| {name} | {1e3 * row.seconds:.1f} | {row.images:.0f} | {row.mfu:.1%} | {row.memory / 2**30:.1f} | "
                f"{row.kernels:.0f} | {row.busy:.0%} | {row.first:.0f} |",
                flush=True,
            )


def measured(config: BenchConfig, store: FrameStore, kind: str, a: argparse.Namespace, name: str) -> Row:
    """A row of the table."""
    torch._dynamo.reset()
    torch.cuda.empty_cache()
    with opened(config, store, kind) as session:
        with loading(session) as source:
            [batch] = islice(source, 1)
        again = over_and_over(session, batch if batch.masked.is_pinned() else batch.pin_memory())
        began = time.perf_counter()
        a_step(session.device, partial(whole_steps, session, again, 1, []), 1)
        first = time.perf_counter() - began
        whole_steps(session, again, _WARM_UP, [])
        torch.cuda.reset_peak_memory_stats()
        work = partial(whole_steps, session, again, a.block, [])
        seconds = statistics.median(a_step(session.device, work, a.block).wall for _ in range(a.rounds))
        images = config.train.batch_size / seconds
        memory = torch.cuda.max_memory_allocated()
        mfu = images * session_flops(session, drop_path=0.0) / PEAK
        row = Row(seconds, images, mfu, memory, first)
        return row if a.profile is None else profiled(session, again, row, a.profile / f"{name.replace(', ', '-')}.txt")


def profiled(session: Session, batches: Iterator, row: Row, file: Path) -> Row:
    """The same, with the kernels that a step launches and the share of its time in which one runs."""
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as found:
        whole_steps(session, batches, _PROFILED, [])
        torch.cuda.synchronize()
    ran = [event for event in found.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(found.key_averages().table(sort_by="self_cuda_time_total", row_limit=60, max_name_column_width=90))
    busy = sum(event.time_range.elapsed_us() for event in ran) / 1e6 / _PROFILED
    return replace(row, kernels=len(ran) / _PROFILED, busy=busy / row.seconds)


@contextmanager
def opened(config: BenchConfig, store: FrameStore, kind: str) -> Iterator[Session]:
    """A session whose backbone attends as `kind` says."""
    with ExitStack() as stack:
        if kind == "grouped":
            stack.enter_context(mock.patch.object(attention, "choose", return_value=attention.grouped_attention))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        yield stack.enter_context(bench_session(config, store, folder / "run"))


def config(a: argparse.Namespace, model: str, method: str, compiled: bool) -> BenchConfig:
    """Of `benchmarks/step.py`, for one row."""
    words = {"global_size": 224, "local_size": 96, "local_count": 8, "augment": "surgical", "accumulate": 1}
    options = {**vars(a), **words, "model": model, "method": method, "device": "cuda", "threads": "auto"}
    made = config_of(argparse.Namespace(**options))
    hardware = replace(made.hardware, compile=compiled, activation_checkpointing=a.checkpointing)
    return replace(made, hardware=hardware)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = partial(str.split, sep=",")
    parser.add_argument("--models", type=names, default=["vit_base_patch16", "vit_small_patch16"])
    parser.add_argument("--methods", type=names, default=["simdinov2"])
    parser.add_argument("--compile", type=names, default=["false", "true"])
    parser.add_argument("--attention", type=names, default=["packed", "grouped"])
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16", "fp16"), default="bf16")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--checkpointing", action="store_true", help="recompute activations")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--block", type=int, default=8, help="steps to a block")
    parser.add_argument("--profile", type=Path, help="a folder for tables of what ran")
    return parser.parse_args()


if __name__ == "__main__":
    main()
