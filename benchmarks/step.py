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
import statistics
import tempfile
from pathlib import Path

from surgdino import machine
from surgdino.bench.frames import BenchConfig, repeated
from surgdino.bench.loop import Rounds, alternate, bench_session, loading, whole_steps
from surgdino.bench.step import describe
from surgdino.cli.compose import compose
from surgdino.config import plain
from surgdino.datasets.card import load_card
from surgdino.datasets.open import open_dataset
from surgdino.datasets.synthetic.cholec80 import write_cholec80
from surgdino.engine.session import Session
from surgdino.frames.store import FrameStore, StoreSettings, build_store

GOAL = 1.10


def main() -> None:
    """Measure and print."""
    arguments = parse()
    with tempfile.TemporaryDirectory() as folder:
        store = frames(Path(folder), arguments.batch)
        with bench_session(config_of(arguments), store, Path(folder) / "run") as session:
            measured = measure(session, arguments.rounds, arguments.block)
            print(describe(session))
    for name, blocks in (("passes alone", measured.passes), ("whole step", measured.whole)):
        seconds = statistics.median(block.wall for block in blocks)
        print(f"{name:14} {seconds * 1000:9.1f} ms   {arguments.batch / seconds:8.1f} images/s")
    rounds = f"median of {len(measured.whole)} rounds"
    print(f"{'ratio':14} {measured.ratio('wall'):9.3f}      goal: below {GOAL}; {rounds}")
    print(f"{'ratio, CPU':14} {measured.ratio('cpu'):9.3f}      CPU seconds of this process alone")
    print(f"{'data wait':14} {measured.waited:9.1%}      of the whole step")


def measure(session: Session, rounds: int, block: int) -> Rounds:
    """Blocks of whole steps and of their passes alone by turns, after a block to warm up."""
    with loading(session) as source:
        whole_steps(session, source, block, [])
        return alternate(session, source, rounds, block)


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
    parser.add_argument("--accumulate", type=int, default=1, help="micro-batches to a step")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    parser.add_argument("--workers", type=int, default=max(machine.cores() - 1, 1))
    parser.add_argument("--threads", type=int, default=1, help="of torch on the CPU")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--block", type=int, default=2, help="steps to a block")
    return parser.parse_args()


def config_of(a: argparse.Namespace) -> BenchConfig:
    """The configuration of such a run."""
    crops = {"global_size": a.global_size, "local_size": a.local_size, "local_count": a.local_count}
    hardware = {"device": a.device, "precision": a.precision, "loader_workers": a.workers, "threads": a.threads}
    sections = {"crops": crops, "train": {"batch_size": a.batch, "accumulate": a.accumulate}, "hardware": hardware}
    groups = [f"model={a.model}", f"method={a.method}", f"augment={a.augment}"]
    words = [f"{name}.{key}={value}" for name, values in sections.items() for key, value in values.items()]
    return BenchConfig.of(plain(compose("bench", [*groups, *words])))


def frames(folder: Path, at_least: int) -> FrameStore:
    """The store of a generated set."""
    write_cholec80(folder / "cholec80", videos=4, seconds=16, size=(426, 240), seed=0)
    manifest = open_dataset(load_card("cholec80"), folder / "cholec80")
    store = build_store(manifest, folder / "store", StoreSettings.of(fps=2), workers=1, progress=False)
    return repeated(store, at_least)


if __name__ == "__main__":
    main()
