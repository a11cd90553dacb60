"""`surgdino bench data`: from stored JPEG to crops, stage by stage, beside what the training step takes."""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

from surgdino.bench.frames import bench_frames
from surgdino.bench.loop import bench_session, loader_rate, loading, over_and_over, run_steps
from surgdino.bench.machine import StoreReading, read_store
from surgdino.bench.report import Line, Report, number, unit
from surgdino.bench.step import describe, more_cutting
from surgdino.crops.multicrop import MultiCrop
from surgdino.crops.sampler import partner
from surgdino.engine.precision import loader_workers
from surgdino.engine.session import Session
from surgdino.frames.store import FrameStore

_IMAGES = 256


@dataclass(frozen=True)
class DataFigures:
    """Images/s of each stage; `decode` and `cut` (decoding included) on one core, `step` with its data at hand."""

    reading: StoreReading
    decode: float
    cut: float
    loader: float
    step: float
    workers: int
    cores: int
    gpu: bool


def measure(cfg: Mapping[str, Any], seconds: float) -> Report:
    """Open a session as pretraining would, and run each stage of its data by itself."""
    with (
        tempfile.TemporaryDirectory() as folder,
        bench_frames(cfg, cfg["train"]["batch_size"]) as frames,
        bench_session(cfg, frames.store, Path(folder) / "run") as session,
    ):
        return report(data_figures(session, seconds), f"{describe(session)}; {frames.source}")


def data_figures(session: Session, seconds: float) -> DataFigures:
    """All measurements of one session."""
    plan, cores = session.plan, len(os.sched_getaffinity(0))
    workers, images = loader_workers(plan.hardware, cores), plan.train.batch_size
    reading = read_store(plan.store, seconds / 2)
    decode, cut = a_core(plan.store, MultiCrop(plan.crops, plan.augment), seconds / 2)
    with loading(session) as source:
        loader = loader_rate(source, images, workers, seconds)
        batch = next(source)
    run = run_steps(session, over_and_over(session, batch), seconds)
    step = images / (run.seconds - run.waited)
    return DataFigures(reading, decode, cut, loader, step, workers, cores, session.device.type == "cuda")


def a_core(store: FrameStore, multicrop: MultiCrop, seconds: float) -> tuple[float, float]:
    """Images a second of processor time: decoded, and decoded and cut."""
    cv2.setNumThreads(0)
    draw = random.Random(0)
    indices = [draw.randrange(len(store)) for _ in range(_IMAGES)]

    def decode(index: int) -> None:
        store.read(index)

    def cut(index: int) -> None:
        second = partner(store, index, multicrop.settings.pair_seconds, index)
        near = None if second == index else (store.read(second), store.content(second))
        multicrop(store.read(index), store.content(index), index, near)

    for index in indices[:8]:
        cut(index)  # noise fields, open files
    return images_a_second(decode, indices, seconds), images_a_second(cut, indices, seconds)


def images_a_second(work: Callable[[int], object], indices: list[int], seconds: float) -> float:
    """Images per second of processor time, so that a busy machine disturbs it as little as it can."""
    cpu, wall, count = time.process_time(), time.perf_counter(), 0
    while time.perf_counter() - wall < seconds:
        work(indices[count % len(indices)])
        count += 1
    return count / (time.process_time() - cpu)


def report(f: DataFigures, setting: str) -> Report:
    """The table and its figures; a stage's share is how much of it the step uses."""
    needed = f"the step takes {number(f.step)}"
    rows = [("reading JPEGs, memory", f.reading.memory.frames, unit(f.reading.memory.bytes, "B/s"))]
    if f.reading.disk:
        rows.append(("reading JPEGs, disk", f.reading.disk.frames, unit(f.reading.disk.bytes, "B/s")))
    rows.append(("crops from the loader", f.loader, f"{f.workers} of {f.cores} cores cut"))
    lines = [
        Line("decoding a JPEG, a core", f"{number(f.decode)} images/s", ""),
        Line("JPEG to crops, a core", f"{number(f.cut)} images/s", f"decoding alone {number(f.decode)}"),
    ]
    lines += [Line(what, f"{number(rate)} images/s", f"{needed}; {more}", f.step / rate) for what, rate, more in rows]
    lines.append(Line("training step, data at hand", f"{number(f.step)} images/s"))
    notes = [_how_read(f.reading), "the loader runs while the step rests, and the step while the loader rests"]
    return Report("Data", setting, lines, "used by the step", verdict(f), notes, _machine_readable(f))


def verdict(f: DataFigures) -> str:
    """What binds, and what to do about it."""
    chip = "GPU" if f.gpu else "CPU"
    disk = f.reading.disk.frames if f.reading.disk else None
    if disk is not None and disk < min(f.loader, f.step):
        return (
            f"The disk binds where the store is larger than memory: one reader gets {number(disk)} images/s from it, "
            f"the step could take {number(f.step)}. Put data.store on a faster disk, or raise "
            "hardware.loader_workers, which read at the same time."
        )
    if f.loader < f.step:
        return (
            f"The CPU cores that cut crops bind: they deliver {number(f.loader)} images/s, the step could take "
            f"{number(f.step)}. {more_cutting(f.workers, f.cores)}"
        )
    told = f"The {chip} binds: the step takes {number(f.step)} images/s, the loader would deliver {number(f.loader)}"
    spare = f.loader / f.step
    if not f.gpu:
        return f"{told} from cores that both share: cutting costs about {1 / spare:.0%} of them."
    return f"{told}, {spare:.1f} times as many. Fewer hardware.loader_workers would do."


def _how_read(reading: StoreReading) -> str:
    if reading.disk:
        return (
            "disk: after the kernel gave up its copies of these frames; a copy in the drive or a file server cannot be "
            "given up without root"
        )
    return (
        "read from memory only, so the disk is untested: too few frames, or a file system that keeps its copies unless "
        "root empties them"
    )


def _machine_readable(f: DataFigures) -> dict[str, Any]:
    disk = f.reading.disk
    return {
        "memory_frames_per_second": f.reading.memory.frames,
        "memory_bytes_per_second": f.reading.memory.bytes,
        "disk_frames_per_second": disk.frames if disk else None,
        "disk_bytes_per_second": disk.bytes if disk else None,
        "decode_images_per_second_core": f.decode,
        "crops_images_per_second_core": f.cut,
        "loader_images_per_second": f.loader,
        "loader_workers": f.workers,
        "step_images_per_second": f.step,
    }
