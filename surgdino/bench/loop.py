"""The training loop taken apart: its passes, its whole steps, its loader, each timed by itself."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

from surgdino.backbone.vit import build_backbone
from surgdino.bench.machine import finish
from surgdino.config import typed
from surgdino.crops.loader import Batch
from surgdino.crops.multicrop import CropSettings
from surgdino.engine.methods.parts.views import Views
from surgdino.engine.passes import learn, micro_batches, pools, teach
from surgdino.engine.plan import HardwareSettings, TrainPlan, TrainSettings
from surgdino.engine.session import Session, batches, open_session
from surgdino.engine.train import train_step
from surgdino.frames.store import FrameStore

# More steps than a benchmark takes; the schedules need an end.
_STEPS = 1_000_000


class Seconds(NamedTuple):
    """A step's time on the wall and on the processor."""

    wall: float
    cpu: float


@dataclass
class Rounds:
    """Seconds a step in each round, whole and passes alone, and the share of the whole steps spent without a batch."""

    whole: list[Seconds]
    passes: list[Seconds]
    waited: float

    @property
    def unrest(self) -> float:
        """The slowest round's passes / the fastest's, which did the same: 1 on a machine that does nothing else."""
        walls = [passes.wall for passes in self.passes]
        return max(walls) / min(walls)

    def ratio(self, clock: str = "wall") -> float:
        """Median over the rounds of whole step / passes alone."""
        pairs = zip(self.whole, self.passes, strict=True)
        return statistics.median(getattr(whole, clock) / getattr(passes, clock) for whole, passes in pairs)


@dataclass(frozen=True)
class Run:
    """Steps one after another, as training takes them: seconds a step, and of these without a batch."""

    steps: int
    seconds: float
    waited: float


@contextmanager
def bench_session(cfg: Mapping[str, Any], store: FrameStore, folder: Path) -> Iterator[Session]:
    """A training session as `cfg` describes it, its backbone learning from the first step; it writes to `folder`."""
    train = typed(TrainSettings, cfg["train"], "train")
    plan = TrainPlan(
        backbone=build_backbone(cfg["model"], drop_path=train.drop_path),
        model=cfg["model"],
        method=cfg["method"],
        store=store,
        augment=cfg["augment"],
        crops=typed(CropSettings, cfg["crops"], "crops"),
        train=replace(train, steps=_STEPS, head_warmup_steps=0),
        hardware=typed(HardwareSettings, cfg["hardware"], "hardware"),
        folder=folder,
        progress=False,
    )
    folder.mkdir(parents=True, exist_ok=True)
    session = open_session(plan, lambda sentence: None)  # what it says of learning is beside the point here
    with session.monitor:
        yield session


@contextmanager
def loading(session: Session) -> Iterator[Iterator[Batch]]:
    """The session's batches; its workers end with the block."""
    source = cast(Generator[Batch], batches(session))
    try:
        yield source
    finally:
        source.close()


def loader_rate(source: Iterator[Batch], images: int, workers: int, seconds: float) -> float:
    """Images/s that the loader delivers to one who does nothing else.

    Leaves it without a batch in stock. What its workers had ready at the start does not count.
    """
    for _ in range(2 * max(workers, 1)):
        next(source)
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < seconds or count < 2 * max(workers, 1):
        next(source)
        count += 1
    return count * images / (time.perf_counter() - started)


def run_steps(session: Session, source: Iterator[Batch], seconds: float) -> Run:
    """Whole steps for so many seconds, two at least; one before them, so that the loader is in step."""
    whole_steps(session, source, 1, [])
    waits: list[float] = []
    finish(session.device)
    started = time.perf_counter()
    while time.perf_counter() - started < seconds or len(waits) < 2:
        whole_steps(session, source, 1, waits)
    finish(session.device)
    return Run(len(waits), (time.perf_counter() - started) / len(waits), sum(waits) / len(waits))


def over_and_over(session: Session, batch: Batch) -> Iterator[Batch]:
    """One batch for ever, at hand at once: the loop without its loader."""
    while True:
        with session.monitor.waiting():
            pass
        yield batch


def alternate(session: Session, source: Iterator[Batch], rounds: int, block: int) -> Rounds:
    """Blocks of whole steps and blocks of passes by turns, so that a busy machine slows both alike."""
    waits: list[float] = []
    measured = Rounds([], [], 0.0)
    for _ in range(rounds):
        measured.whole.append(a_step(session, partial(whole_steps, session, source, block, waits), block))
        # These come from the loader too, so that its workers take the same share of the machine meanwhile.
        views = [micro_batches(session, next(source)) for _ in range(block)]
        measured.passes.append(a_step(session, partial(all_passes, session, views), block))
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
        targets, _ = teach(session, views)
        learn(session, views, targets, pools(session, views, targets))
        session.optimizer.zero_grad(set_to_none=True)


def a_step(session: Session, work: Callable[[], None], steps: int) -> Seconds:
    """What each of the `steps` steps in `work` takes, the device's queue emptied before and after."""
    finish(session.device)
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    finish(session.device)
    return Seconds((time.perf_counter() - wall) / steps, (time.process_time() - cpu) / steps)
