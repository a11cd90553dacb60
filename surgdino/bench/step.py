"""`surgdino bench step`: how fast a training step is, how fast it could be, and what limits it."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from surgdino import machine
from surgdino.bench.feeding import CORE_NOTE, CoreRates, core_rates, more_cutting
from surgdino.bench.flops import session_flops
from surgdino.bench.frames import BenchConfig, bench_frames
from surgdino.bench.loop import (
    Rounds,
    Run,
    a_step,
    alternate,
    bench_session,
    loader_rate,
    loading,
    run_steps,
    whole_steps,
)
from surgdino.bench.report import Line, Report, number, unit
from surgdino.engine.hardware import loader_workers
from surgdino.engine.memory import peak_and_size
from surgdino.engine.precision import name_of
from surgdino.engine.session import Session

_WAITS = 0.05  # a loop that waits a smaller share of its time is not limited by its data
_WELL_USED = 0.3
_BUSY = 1.3
# Sides of square matrices: large enough that a chip reaches its rate, small enough for a second on two cores.
_SIDES = {"cuda": (4096, 8192), "cpu": (1024, 2048)}


@dataclass(frozen=True)
class StepFigures:
    """What is measured; rates in images/s, `flops` of one image (`flops_done`: without what drop path leaves out)."""

    images: int
    rounds: Rounds
    run: Run
    loader: float
    workers: int
    cores: int
    core: CoreRates
    flops: float
    flops_done: float
    matrix: float
    memory: tuple[float, float]
    gpu: bool

    @property
    def passes(self) -> float:
        """Images/s of forward and backward passes alone."""
        return self.images / statistics.median(passes.wall for passes in self.rounds.passes)

    @property
    def whole(self) -> float:
        """Images/s of the loop as it runs."""
        return self.images / self.run.seconds

    @property
    def could_take(self) -> float:
        """Images/s of the loop if it never waited for a batch."""
        return self.images / max(self.run.seconds - self.run.waited, 1e-9)

    @property
    def waits(self) -> float:
        """Share of the time in which the loop waits for a batch."""
        return self.run.waited / self.run.seconds

    @property
    def mfu(self) -> float:
        """Achieved FLOP/s of the whole loop as a share of the measured matrix rate."""
        return self.whole * self.flops / self.matrix


def measure(config: BenchConfig) -> Report:
    """Open a session as pretraining would, and time its parts."""
    with opened(config) as (session, setting):
        return report(step_figures(session, config.bench.seconds), setting)


@contextmanager
def opened(config: BenchConfig) -> Iterator[tuple[Session, str]]:
    """The session that is measured, and what it is in a few words; its run folder goes with it."""
    with (
        tempfile.TemporaryDirectory() as folder,
        bench_frames(config) as (store, source),
        bench_session(config, store, Path(folder) / "run") as session,
    ):
        yield session, f"{describe(session)}; {source}"


def step_figures(session: Session, seconds: float) -> StepFigures:
    """All measurements of one session; each of four parts takes about `seconds`."""
    plan, device = session.plan, session.device
    cores = machine.cores()
    workers, images = loader_workers(plan.hardware), plan.train.batch_size
    dtype = session.hardware.dtype
    matrix = matrix_rate(device, dtype, seconds / 2)
    with loading(session) as source:
        whole_steps(session, source, 1, [])  # the first one also allocates, and chooses kernels
        loader = loader_rate(source, images, workers, seconds)
        run = run_steps(session, source, seconds)  # at once, while the loader has no batch ready
        count = max(2, min(100, int(seconds / (2 * run.seconds))))
        rounds = alternate(session, source, count, 1)
    matrix = max(matrix, matrix_rate(device, dtype, seconds / 2))  # as hot, and as busy, as the steps were
    return StepFigures(
        images=images,
        rounds=rounds,
        run=run,
        loader=loader,
        workers=workers,
        cores=cores,
        core=core_rates(plan, seconds / 4),
        flops=session_flops(session, drop_path=0.0),
        flops_done=session_flops(session, drop_path=plan.train.drop_path),
        matrix=matrix,
        memory=peak_and_size(device),
        gpu=device.type == "cuda",
    )


def matrix_rate(device: torch.device, dtype: torch.dtype, seconds: float) -> float:
    """FLOP/s of the fastest square matrix product found within `seconds`: the upper limit of a network's FLOP/s."""
    best = 0.0
    for side in _SIDES.get(device.type, _SIDES["cpu"]):
        left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        for repeats in (1, 5 if device.type == "cuda" else 1):  # the first time warms up
            until = time.perf_counter() + seconds / 4
            while True:
                seconds_taken = a_step(device, partial(_multiply, left, right, repeats), 1).wall
                best = max(best, repeats * 2 * side**3 / seconds_taken)
                if time.perf_counter() > until:
                    break
    return best


def _multiply(left: torch.Tensor, right: torch.Tensor, times: int) -> None:
    for _ in range(times):
        left @ right


def describe(session: Session) -> str:
    """Model, batch, machine and precision in a few words."""
    plan, device = session.plan, session.device
    crops = plan.crops
    chip = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} thread(s)"
    dtype = name_of(session.hardware.dtype)
    views = f"2x{crops.global_size} + {crops.local_count}x{crops.local_size}"
    return f"{plan.model['name']}, {plan.method['name']}, batch {plan.train.batch_size} of {views}, {chip}, {dtype}"


def report(f: StepFigures, setting: str) -> Report:
    """The table and its figures."""
    achieved, passes_flops = f.whole * f.flops, f.passes * f.flops
    peak, room = f.memory
    where = "of the GPU" if f.gpu else "of the machine"
    lines = (
        Line("passes alone", f"{f.images / f.passes:.3g} s a step", f"that would be {number(f.passes)} images/s"),
        Line("whole step", f"{f.rounds.ratio():.3f} x passes", "nothing but its passes", 1 / f.rounds.ratio()),
        Line(
            "the loop with its loader",
            f"{number(f.whole)} images/s",
            f"without waiting {number(f.could_take)}",
            f.whole / f.could_take,
        ),
        Line(
            "the loader alone",
            f"{number(f.loader)} images/s",
            f"{f.workers} of {f.cores} cores (hardware.loader_workers)",
        ),
        *f.core.lines(),
        Line("arithmetic, passes", unit(passes_flops, "FLOP/s"), _matrix(f), passes_flops / f.matrix),
        Line("arithmetic, loop (MFU)", unit(achieved, "FLOP/s"), _matrix(f), f.mfu),
        Line("peak memory", unit(peak, "B"), f"{where} {unit(room, 'B')}", peak / room),
    )
    skipped = 1 - f.flops_done / f.flops
    notes = [
        f"{unit(f.flops, 'FLOP')} an image: student forward and backward, teacher forward, heads; in full, although "
        f"stochastic depth skips {skipped:.0%} of it",
        f"passes and whole steps in turns, median of {len(f.rounds.passes)} rounds; the loop over {f.run.steps} steps "
        f"in a row, {f.waits:.0%} of their time without a batch",
        CORE_NOTE,
    ]
    if f.rounds.unrest > _BUSY:
        notes.append(
            f"the machine was busy with other work: the same passes took up to {f.rounds.unrest:.1f} times as long; "
            "measure again when it is idle"
        )
    figures = {
        "batch_size": f.images,
        "passes_images_per_second": f.passes,
        "whole_images_per_second": f.whole,
        "could_take_images_per_second": f.could_take,
        "loader_images_per_second": f.loader,
        "loader_workers": f.workers,
        "whole_to_passes": f.rounds.ratio(),
        "data_wait": f.waits,
        **f.core.figures,
        "flops_per_image": f.flops,
        "achieved_flops_per_second": f.whole * f.flops,
        "matrix_flops_per_second": f.matrix,
        "mfu": f.mfu,
        "peak_memory_bytes": f.memory[0],
    }
    return Report("Training step", setting, lines, "of the limit", verdict(f), notes, figures)


def _matrix(f: StepFigures) -> str:
    return f"a matrix product {unit(f.matrix, 'FLOP/s')}"


def verdict(f: StepFigures) -> str:
    """What limits the speed, and what to do about it."""
    return f"{_binds(f)} {f.core.needs(f.could_take, f.cores)}" if f.gpu else _binds(f)


def _binds(f: StepFigures) -> str:
    chip = "GPU" if f.gpu else "CPU"
    if f.waits > _WAITS and f.loader > f.could_take and not f.gpu:
        return (
            f"The CPU cores bind, which training and cutting crops share: together {number(f.whole)} images/s, while "
            f"the step alone could take {number(f.could_take)} and the loader alone deliver {number(f.loader)}. More "
            "cores help, or fewer hardware.threads."
        )
    if f.waits > _WAITS:
        return (
            f"The CPU cores that cut crops bind: they deliver {number(f.whole)} images/s, the step could take "
            f"{number(f.could_take)}. {more_cutting(f.workers, f.cores, f.core.on)}"
        )
    text = (
        f"The {chip} binds: the step takes {number(f.whole)} images/s, the loader would deliver {number(f.loader)}. "
        f"It reaches {f.mfu:.0%} of the {chip}'s matrix rate"
    )
    if f.mfu >= _WELL_USED:
        return f"{text}, which is good use: only a smaller model, smaller crops or a faster {chip} would be faster."
    peak, room = f.memory
    if f.gpu and peak < room / 2:
        return f"{text}, at {peak / room:.0%} of its memory: raise train.batch_size."
    return f"{text}: small models, small crops and small batches leave it idle between products."
