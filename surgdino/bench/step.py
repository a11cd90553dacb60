"""`surgdino bench step`: how fast a training step is, how fast it could be, and what holds it up."""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from surgdino.bench.flops import head_shape, image_flops, vit_shape
from surgdino.bench.frames import bench_frames
from surgdino.bench.loop import Rounds, Run, alternate, bench_session, loader_rate, loading, run_steps, whole_steps
from surgdino.bench.machine import matrix_rate, memory
from surgdino.bench.report import Line, Report, number, unit
from surgdino.engine.precision import choose_dtype, loader_workers
from surgdino.engine.session import Session

# A loop that waits less than this share of its time is not held up by its data.
WAITS = 0.05
_WELL_USED = 0.3
_BUSY = 1.3


@dataclass(frozen=True)
class StepFigures:
    """What is measured; rates in images/s, `flops` of one image (with and without what drop path leaves out)."""

    images: int
    rounds: Rounds
    run: Run
    loader: float
    workers: int
    cores: int
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
        """Images/s of the loop if no batch ever kept it waiting."""
        return self.images / max(self.run.seconds - self.run.waited, 1e-9)

    @property
    def waits(self) -> float:
        """Share of the time in which the loop has no batch."""
        return self.run.waited / self.run.seconds

    @property
    def mfu(self) -> float:
        """Achieved FLOP/s of the whole loop as a share of the measured matrix rate."""
        return self.whole * self.flops / self.matrix


def measure(cfg: Mapping[str, Any], seconds: float) -> Report:
    """Open a session as pretraining would, take it apart, and put it into words."""
    with (
        tempfile.TemporaryDirectory() as folder,
        bench_frames(cfg, cfg["train"]["batch_size"]) as frames,
        bench_session(cfg, frames.store, Path(folder) / "run") as session,
    ):
        return report(step_figures(session, seconds), f"{describe(session)}; {frames.source}")


def step_figures(session: Session, seconds: float) -> StepFigures:
    """All measurements of one session; each of four parts takes about `seconds`."""
    plan, device = session.plan, session.device
    cores = len(os.sched_getaffinity(0))
    workers, images = loader_workers(plan.hardware, cores), plan.train.batch_size
    dtype = choose_dtype(plan.hardware, device)
    matrix = matrix_rate(device, dtype, seconds / 2)
    with loading(session) as source:
        whole_steps(session, source, 1, [])  # the first one also allocates, and chooses kernels
        loader = loader_rate(source, images, workers, seconds)
        run = run_steps(session, source, seconds)  # straight after: the loader has nothing in stock
        rounds = alternate(session, source, rounds_within(run, seconds), 1)
    matrix = max(matrix, matrix_rate(device, dtype, seconds / 2))  # as hot, and as busy, as the steps were
    return StepFigures(
        images=images,
        rounds=rounds,
        run=run,
        loader=loader,
        workers=workers,
        cores=cores,
        flops=flops_of(session, drop_path=0.0),
        flops_done=flops_of(session, drop_path=plan.train.drop_path),
        matrix=matrix,
        memory=memory(device),
        gpu=device.type == "cuda",
    )


def rounds_within(run: Run, seconds: float) -> int:
    """Rounds of a whole step and its passes that fit in the time, two at least."""
    return max(2, min(100, int(seconds / (2 * run.seconds))))


def flops_of(session: Session, drop_path: float) -> float:
    """FLOPs that a step asks for, for each of its images."""
    crops, method = session.plan.crops, session.settings
    return image_flops(
        vit_shape(session.student.backbone),
        head_shape(session.student.head, method.mask_probability),
        global_size=crops.global_size,
        local_size=crops.local_size,
        local_count=crops.local_count,
        masked_share=method.mask_probability * sum(method.mask_ratio) / 2,
        drop_path=drop_path,
    )


def describe(session: Session) -> str:
    """Model, batch, machine and precision in a few words."""
    plan, device = session.plan, session.device
    crops = plan.crops
    machine = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} thread(s)"
    dtype = str(choose_dtype(plan.hardware, device)).removeprefix("torch.").replace("bfloat16", "bf16")
    views = f"2x{crops.global_size} + {crops.local_count}x{crops.local_size}"
    return f"{plan.model['name']}, {plan.method['name']}, batch {plan.train.batch_size} of {views}, {machine}, {dtype}"


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
        Line("arithmetic, passes", unit(passes_flops, "FLOP/s"), _matrix(f), passes_flops / f.matrix),
        Line("arithmetic, loop (MFU)", unit(achieved, "FLOP/s"), _matrix(f), f.mfu),
        Line("peak memory", unit(peak, "B"), f"{where} {unit(room, 'B')}", peak / room),
    )
    skipped = 1 - f.flops_done / f.flops
    notes = [
        f"{unit(f.flops, 'FLOP')} an image: student forward and backward, teacher forward, heads; in full, although "
        f"stochastic depth leaves {skipped:.0%} of it out",
        f"passes and whole steps by turns, median of {len(f.rounds.passes)} rounds; the loop over {f.run.steps} steps "
        f"in a row, {f.waits:.0%} of their time without a batch",
    ]
    if f.rounds.unrest > _BUSY:
        notes.append(
            f"this machine was busy with other things: the same passes took up to {f.rounds.unrest:.1f} times as long; "
            "measure again when it is quiet"
        )
    return Report("Training step", setting, lines, "of the limit", verdict(f), notes, _machine_readable(f))


def _matrix(f: StepFigures) -> str:
    return f"a matrix product {unit(f.matrix, 'FLOP/s')}"


def verdict(f: StepFigures) -> str:
    """What binds, and what to do about it."""
    chip = "GPU" if f.gpu else "CPU"
    if f.waits > WAITS and f.loader > f.could_take and not f.gpu:
        return (
            f"The CPU cores bind, which training and cutting crops share: together {number(f.whole)} images/s, while "
            f"the step alone could take {number(f.could_take)} and the loader alone deliver {number(f.loader)}. More "
            "cores help, or fewer hardware.threads."
        )
    if f.waits > WAITS:
        return (
            f"The CPU cores that cut crops bind: they deliver {number(f.whole)} images/s, the step could take "
            f"{number(f.could_take)}. {more_cutting(f.workers, f.cores)}"
        )
    told = (
        f"The {chip} binds: the step takes {number(f.whole)} images/s, the loader would deliver {number(f.loader)}. "
        f"It reaches {f.mfu:.0%} of the {chip}'s matrix rate"
    )
    if f.mfu >= _WELL_USED:
        return f"{told}, which is good use: only a smaller model, smaller crops or a faster {chip} would be faster."
    peak, room = f.memory
    if f.gpu and peak < room / 2:
        return f"{told}, at {peak / room:.0%} of its memory: raise train.batch_size."
    return f"{told}: small models, small crops and small batches leave it idle between products."


def more_cutting(workers: int, cores: int) -> str:
    """Advice where cutting crops binds."""
    if workers < cores - 1:
        return f"Raise hardware.loader_workers (now {workers}; the machine has {cores} cores)."
    return (
        f"All {cores} cores are in use: fewer crops.local_count, augment=natural or a smaller data.short_side cost "
        "less; more cores help."
    )


def _machine_readable(f: StepFigures) -> dict[str, Any]:
    return {
        "batch_size": f.images,
        "passes_images_per_second": f.passes,
        "whole_images_per_second": f.whole,
        "could_take_images_per_second": f.could_take,
        "loader_images_per_second": f.loader,
        "loader_workers": f.workers,
        "whole_to_passes": f.rounds.ratio(),
        "data_wait": f.waits,
        "flops_per_image": f.flops,
        "achieved_flops_per_second": f.whole * f.flops,
        "matrix_flops_per_second": f.matrix,
        "mfu": f.mfu,
        "peak_memory_bytes": f.memory[0],
    }
