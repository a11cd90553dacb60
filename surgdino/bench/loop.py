"""The training loop taken apart: its passes, its whole steps and its loader, each timed alone."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple, cast

import torch

from surgdino.backbone.vit import build_backbone
from surgdino.bench.frames import BenchConfig
from surgdino.crops.loader import Batch
from surgdino.engine.methods.parts.views import Views
from surgdino.engine.plan import TrainPlan
from surgdino.engine.session import Session
from surgdino.engine.step import compute_gradients, compute_targets, micro_batches, pools, train_step
from surgdino.engine.train import open_session
from surgdino.frames.store import FrameStore

# More steps than a benchmark takes: the schedules need an end.
_STEPS = 1_000_000


class Seconds(NamedTuple):
    """Wall and processor time of a step."""

    wall: float
    cpu: float


@dataclass
class Rounds:
    """Seconds of a step in each round, whole and passes alone, and the share of the whole steps without a batch."""

    whole: list[Seconds]
    passes: list[Seconds]
    waited: float

    @property
    def unrest(self) -> float:
        """Passes of the slowest round / of the fastest round: 1 on a machine that does nothing else."""
        walls = [passes.wall for passes in self.passes]
        return max(walls) / min(walls)

    def ratio(self, clock: str = "wall") -> float:
        """Median over the rounds of whole step / passes alone."""
        pairs = zip(self.whole, self.passes, strict=True)
        return statistics.median(getattr(whole, clock) / getattr(passes, clock) for whole, passes in pairs)


@dataclass(frozen=True)
class Run:
    """Steps in a row, as training takes them: seconds of a step, and those of them without a batch."""

    steps: int
    seconds: float
    waited: float


@contextmanager
def bench_session(config: BenchConfig, store: FrameStore, folder: Path) -> Iterator[Session]:
    """A training session as pretraining would open it, without the head's warm-up; it writes to `folder`."""
    plan = TrainPlan(
        backbone=build_backbone(config.model, drop_path=config.train.drop_path),
        model=config.model.as_dict(),
        method=config.method,
        store=store,
        augment=config.augment,
        crops=config.crops.largest,
        train=replace(config.train, steps=_STEPS, head_warmup_steps=0),
        hardware=config.hardware,
        folder=folder,
        progress=False,
    )
    folder.mkdir(parents=True, exist_ok=True)
    session = open_session(plan, lambda sentence: None)  # warnings about learning do not matter here
    with session.monitor:
        yield session


@contextmanager
def loading(session: Session) -> Iterator[Iterator[Batch]]:
    """The session's batches; its workers stop after the block."""
    source = cast(Generator[Batch], session.batches())
    try:
        yield source
    finally:
        source.close()


def loader_rate(source: Iterator[Batch], images: int, workers: int, seconds: float) -> float:
    """Images/s that the loader delivers when nothing else runs; batches that were ready at the start do not count."""
    for _ in range(2 * max(workers, 1)):
        next(source)
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < seconds or count < 2 * max(workers, 1):
        next(source)
        count += 1
    return count * images / (time.perf_counter() - started)


def run_steps(session: Session, source: Iterator[Batch], seconds: float) -> Run:
    """Whole steps for `seconds`, at least two, after one to warm up."""
    whole_steps(session, source, 1, [])
    waits: list[float] = []
    finish(session.device)
    started = time.perf_counter()
    while time.perf_counter() - started < seconds or len(waits) < 2:
        whole_steps(session, source, 1, waits)
    finish(session.device)
    return Run(len(waits), (time.perf_counter() - started) / len(waits), sum(waits) / len(waits))


def over_and_over(session: Session, batch: Batch) -> Iterator[Batch]:
    """One batch, repeated without waiting: the loop without its loader."""
    while True:
        with session.monitor.waiting():
            pass
        yield batch


def alternate(session: Session, source: Iterator[Batch], rounds: int, block: int) -> Rounds:
    """Alternate blocks of whole steps and blocks of passes, so that a busy machine slows both alike."""
    waits: list[float] = []
    measured = Rounds([], [], 0.0)
    for _ in range(rounds):
        measured.whole.append(a_step(session.device, partial(whole_steps, session, source, block, waits), block))
        # From the loader too, so that its workers use the same share of the machine.
        views = [micro_batches(session, next(source)) for _ in range(block)]
        measured.passes.append(a_step(session.device, partial(all_passes, session, views), block))
    measured.waited = sum(waits) / (block * sum(seconds.wall for seconds in measured.whole))
    return measured


def whole_steps(session: Session, source: Iterator[Batch], count: int, waits: list[float]) -> None:
    """Take `count` steps; the waits for their batches go to `waits`."""
    for _ in range(count):
        asked = time.perf_counter()
        batch = next(source)
        waits.append(time.perf_counter() - asked)
        train_step(session, batch)


def all_passes(session: Session, batches: list[list[Views]]) -> None:
    """Of each batch: teacher forward, student forward, backward; nothing is updated."""
    for views in batches:
        targets = compute_targets(session, views)
        compute_gradients(session, views, targets, pools(session, views, targets))
        session.optimizer.zero_grad(set_to_none=True)


def a_step(device: torch.device, work: Callable[[], None], steps: int) -> Seconds:
    """The time of each of the `steps` steps in `work`, with the device's queue empty before and after."""
    finish(device)
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    finish(device)
    return Seconds((time.perf_counter() - wall) / steps, (time.process_time() - cpu) / steps)


def finish(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
