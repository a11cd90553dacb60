"""`surgdino bench data`: from stored JPEG to crops, stage by stage, compared with what the training step takes."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from surgdino import machine
from surgdino.bench.feeding import CORE_NOTE, CoreRates, core_rates, more_cutting
from surgdino.bench.frames import BenchConfig, BenchSettings
from surgdino.bench.loop import loader_rate, loading, over_and_over, run_steps
from surgdino.bench.report import Line, Report, number, unit
from surgdino.bench.step import opened
from surgdino.engine.hardware import loader_workers
from surgdino.engine.session import Session
from surgdino.frames.shard import Shard, ShardReader
from surgdino.frames.store import FrameStore

_PAGE = 4096
_READS = 2000
_FEW_READS = 500
_OPEN_SHARDS = 64


@dataclass(frozen=True)
class Reading:
    """Stored JPEGs a second and their bytes a second."""

    frames: float
    bytes: float


@dataclass(frozen=True)
class StoreReading:
    """How fast JPEGs are read from the store: from memory, and from the disk where that can be measured."""

    memory: Reading
    disk: Reading | None


def read_store(store: FrameStore, seconds: float) -> StoreReading:
    """Read stored JPEGs in random order, without decoding them, one after another.

    Emptying the whole page cache needs root; dropping the pages of one file does not. Some file systems ignore it: then
    the second reading is not much faster than the first, and there is no figure for the disk. Neither is there one for
    a small store, which the kernel reads ahead into memory within the first few reads.
    """
    shards = list({video.shard.path: video.shard for video in store.videos}.values())[:_OPEN_SHARDS]
    rng = np.random.default_rng(0)
    every = [(shard, row) for shard in shards for row in range(len(shard))]
    places = [every[k] for k in rng.permutation(len(every))[:_READS]]  # each once: a second time is from memory
    _drop_pages(places)
    first = _read(places, seconds)
    again = _read(places, seconds)
    enough = len(places) > _FEW_READS and first.frames < again.frames / 2
    return StoreReading(memory=again, disk=first if enough else None)


def _read(places: Sequence[tuple[Shard, int]], seconds: float) -> Reading:
    readers: dict[Path, ShardReader] = {}
    for shard, _ in places:
        if shard.path not in readers:
            readers[shard.path] = ShardReader(shard)
    size = count = 0
    started = time.perf_counter()
    for shard, row in places:
        size, count = size + len(readers[shard.path].jpeg(row)), count + 1
        if time.perf_counter() - started > seconds:
            break
    took = time.perf_counter() - started
    return Reading(count / took, size / took)


def _drop_pages(places: Sequence[tuple[Shard, int]]) -> None:
    """Of the frames that will be read only: others may be in use by a training run."""
    if not hasattr(os, "posix_fadvise"):
        return
    for shard, row in places:
        offset, size = int(shard.columns["offset"][row]), int(shard.columns["size"][row])
        start = offset // _PAGE * _PAGE
        descriptor = os.open(shard.path, os.O_RDONLY)
        try:
            os.fdatasync(descriptor)  # pages that are not written yet cannot be dropped
            length = -(-(offset + size - start) // _PAGE) * _PAGE
            os.posix_fadvise(descriptor, start, length, os.POSIX_FADV_DONTNEED)
        except OSError:
            return
        finally:
            os.close(descriptor)


@dataclass(frozen=True)
class DataFigures:
    """Images/s of each stage; `step` with its data at hand, or as `planned` by bench.images_per_second."""

    reading: StoreReading
    core: CoreRates
    loader: float
    step: float
    workers: int
    cores: int
    gpu: bool
    planned: bool = False


def measure(config: BenchConfig) -> Report:
    """Open a session as pretraining would, and run each stage of its data alone."""
    with opened(config) as (session, setting):
        return report(data_figures(session, config.bench), setting)


def data_figures(session: Session, bench: BenchSettings) -> DataFigures:
    """All measurements of one session."""
    plan, cores, seconds = session.plan, machine.cores(), bench.seconds
    workers, images = loader_workers(plan.hardware), plan.train.batch_size
    reading = read_store(plan.store, seconds / 2)
    core = core_rates(plan, seconds / 2)
    with loading(session) as source:
        loader = loader_rate(source, images, workers, seconds)
        batch = next(source)
    gpu, step = session.device.type == "cuda", bench.images_per_second
    if step is not None:
        return DataFigures(reading, core, loader, step, workers, cores, gpu=True, planned=True)
    run = run_steps(session, over_and_over(session, batch), seconds)
    return DataFigures(reading, core, loader, images / (run.seconds - run.waited), workers, cores, gpu)


def report(f: DataFigures, setting: str) -> Report:
    """The table and its figures; the share of a stage is how much of it the step uses."""
    needed = f"the {'planned GPU' if f.planned else 'step'} takes {number(f.step)}"
    rows = [("reading JPEGs, memory", f.reading.memory.frames, unit(f.reading.memory.bytes, "B/s"))]
    if f.reading.disk:
        rows.append(("reading JPEGs, disk", f.reading.disk.frames, unit(f.reading.disk.bytes, "B/s")))
    rows.append(("crops from the loader", f.loader, f"{f.workers} of {f.cores} cores cut"))
    lines = f.core.lines()
    lines += [Line(what, f"{number(rate)} images/s", f"{needed}; {more}", f.step / rate) for what, rate, more in rows]
    what = "bench.images_per_second" if f.planned else "training step, data at hand"
    lines.append(Line(what, f"{number(f.step)} images/s"))
    read = (
        "disk: read after the kernel dropped its copies of these frames; a copy in the drive or a file server remains"
        if f.reading.disk
        else "read from memory only, the disk was not measured: too few frames, or a file system that keeps its copies"
    )
    notes = [read, "the loader is measured while no step runs, and the step while the loader does not run", CORE_NOTE]
    figures = {
        "memory_frames_per_second": f.reading.memory.frames,
        "memory_bytes_per_second": f.reading.memory.bytes,
        "disk_frames_per_second": f.reading.disk.frames if f.reading.disk else None,
        "disk_bytes_per_second": f.reading.disk.bytes if f.reading.disk else None,
        **f.core.figures,
        "loader_images_per_second": f.loader,
        "loader_workers": f.workers,
        "step_images_per_second": None if f.planned else f.step,
        "planned_images_per_second": f.step if f.planned else None,
    }
    return Report("Data", setting, lines, "used by the step", verdict(f), notes, figures)


def verdict(f: DataFigures) -> str:
    """What limits the speed, and what to do about it."""
    return f"{_binds(f)} {f.core.needs(f.step, f.cores)}" if f.gpu else _binds(f)


def _binds(f: DataFigures) -> str:
    chip = "GPU" if f.gpu else "CPU"
    disk = f.reading.disk.frames if f.reading.disk else None
    if disk is not None and disk < min(f.loader, f.step):
        return (
            f"The disk binds where the store is larger than memory: one reader gets {number(disk)} images/s from it, "
            f"the step could take {number(f.step)}. Put data.store on a faster disk, or raise "
            "hardware.loader_workers, which read in parallel."
        )
    if f.loader < f.step:
        return (
            f"The CPU cores that cut crops bind: they deliver {number(f.loader)} images/s, the step could take "
            f"{number(f.step)}. {more_cutting(f.workers, f.cores, f.core.on)}"
        )
    text = f"The {chip} binds: the step takes {number(f.step)} images/s, the loader would deliver {number(f.loader)}"
    spare = f.loader / f.step
    if not f.gpu:
        return f"{text} from cores that both share: cutting costs about {1 / spare:.0%} of them."
    return f"{text}, {spare:.1f} times as many. Fewer hardware.loader_workers are enough."
