"""`surgdino benchmark`: several backbones through every evaluation of a suite: which is better, and at what?"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from surgdino import console
from surgdino.config import typed
from surgdino.engine.hardware import Hardware, loader_workers
from surgdino.errors import SurgdinoError
from surgdino.evaluations.parts.components import component_pictures
from surgdino.evaluations.parts.evaluation import Reading
from surgdino.exit_code import ExitCode
from surgdino.frames.engines import LOCAL, spread
from surgdino.inputs.backbones import NamedBackbone, open_backbones
from surgdino.inputs.configs import BenchmarkConfig
from surgdino.inputs.labelled import frozen_features
from surgdino.inputs.settings import DataSettings
from surgdino.inputs.suite import Entry, SuiteDataset, open_data, open_suite
from surgdino.inputs.tested import TestedDataset, open_tested
from surgdino.paths import safe_name
from surgdino.runs.benchmark import Cell, Finished, read_finished, write_finished
from surgdino.runs.folder import names_mode, open_run
from surgdino.runs.lock import FolderLock
from surgdino.runs.names import Pseudonyms
from surgdino.tasks.context import feature_cache
from surgdino.tasks.features.cache import FeatureCache
from surgdino.tasks.features.elsewhere import Elsewhere
from surgdino.tasks.labelled_frames import LabelledFrames
from surgdino.verbs.benchmark_cells import Job, measured, measured_here
from surgdino.verbs.benchmark_run import FEATURES, Benchmark, conclude
from surgdino.verbs.report import try_report

_AHEAD = 64  # cells that a scheduler holds: each is sent with the labels of its frames


def main(cfg: Mapping[str, Any]) -> ExitCode:
    """Measure what `cfg` asks for, or what is missing of it; 0, or 1 where an evaluation failed."""
    config = typed(BenchmarkConfig, cfg, "")
    suite = open_suite(config.suite)
    datasets, missing = open_data(suite, config.data)
    backbones = open_backbones(config.backbones)
    for each in backbones:
        try:
            each.start.preprocess(config.image_size)
        except SurgdinoError as error:
            raise error.but(file=each.name) from error
    folder = config.run.dir or Path("runs") / safe_name(f"benchmark-{suite.name}")
    mode = names_mode(folder, config.run.names)
    names = Pseudonyms.open(mode, Path(config.data["store"]))
    with FolderLock(folder):
        run = Benchmark(config, suite, backbones, folder, names)
        tested = list(_opened(run, datasets))
        roots = {each.name: {"dataset": each.card.name, "root": str(each.data.root)} for each in datasets}
        recorded = {
            **cfg,
            "suite": suite.name,
            "data": {**cfg["data"], **roots},
            "run": {"dir": str(folder), "names": mode},
        }
        data_hash = hashlib.sha256("".join(each.manifest.fingerprint() for each in tested).encode()).hexdigest()[:16]
        # Whatever changes: each finished evaluation knows what it depends on.
        open_run(folder, recorded, names, data_hash=data_hash, free=("",))
        run.unused += [f"{name}: not at hand (data.{name}=FOLDER)" for name in missing]
        measure(run, tested)
        path = conclude(run, tested, data_hash)
        page = try_report(folder)
    console.field("results", path)
    if page:
        console.field("report", page)
    return ExitCode(1 if run.failed else 0, folder, results=path, report=page)


def _opened(run: Benchmark, datasets: Sequence[SuiteDataset]) -> Iterator[TestedDataset]:
    """Those that can be used; of the others a line is kept."""
    for dataset in datasets:
        try:
            yield open_tested(dataset, run.backbones, run.config.leakage, run.names)
        except Exception as error:  # costs this dataset alone
            run.fail(dataset.name, error)
    if run.failed and len(run.failed) == len(datasets):
        raise SurgdinoError(f"no dataset can be used: {'; '.join(run.failed.values())}")


def measure(run: Benchmark, tested: Sequence[TestedDataset]) -> None:
    """Every evaluation of every dataset, backbone after backbone, the first one first."""
    used: set[str] = set()
    hardware, jobs = Hardware.of(run.config.hardware), list[Job]()
    hardware.announce(run.config.hardware, run.backbones[0].start.backbone)
    for dataset in tested:
        plan = [(entry, kind) for entry in run.suite.entries for kind in _kinds_of(entry, dataset)]
        planned = {entry.name for entry, _ in plan}
        used |= planned
        for entry in run.suite.entries:
            if entry.datasets and dataset.dataset.name in entry.datasets and entry.name not in planned:
                kinds = ", ".join(dataset.kinds()) or "none"
                wanted = " or ".join(map(str, entry.evaluation.labels()))
                error = SurgdinoError("no such labels here", expected=wanted, found=kinds, fix="run surgdino verify")
                run.fail(f"{entry.name} on {dataset.dataset.name}", error)
        if not plan:
            kinds = ", ".join(dataset.kinds()) or "none"
            run.unused.append(f"{dataset.dataset.name}: no evaluation of the suite uses its labels ({kinds})")
            continue
        jobs += _measure_dataset(run, dataset, plan, hardware)
    if jobs:
        _measure_elsewhere(run, jobs, hardware, tested[0].dataset.data)
    for entry in run.suite.entries:
        if entry.name not in used:
            kinds = " or ".join(filter(None, entry.evaluation.labels())) or "frames"
            run.unused.append(f"{entry.name}: no dataset at hand has {kinds}")


def _kinds_of(entry: Entry, dataset: TestedDataset) -> list[str | None]:
    """The kinds of labels with which an entry is tried on a dataset."""
    if entry.datasets is not None and dataset.dataset.name not in entry.datasets:
        return []
    return [kind for kind in entry.evaluation.labels() if kind is None or kind in dataset.kinds()]


def _measure_dataset(
    run: Benchmark, dataset: TestedDataset, plan: Sequence[tuple[Entry, str | None]], hardware: Hardware
) -> list[Job]:
    """Have the features computed, and measure; with another engine than this process, what is left to measure."""
    left, here = list[Job](), dataset.dataset.data.engine == LOCAL
    name, frames = dataset.dataset.name, dict[str | None, LabelledFrames | Exception]()
    for _, kind in plan:
        if kind not in frames:
            try:
                frames[kind] = dataset.frames(kind)
            except Exception as error:
                frames[kind] = error
    caches = {each.name: _cache_of(run, dataset, each, hardware) for each in run.backbones}
    first = caches[run.backbones[0].name]
    for backbone, cache in caches.items():
        run.planned.append(Cell(FEATURES, name, "", backbone))
        failure = _extract(run, name, backbone, cache, plan, frames)
        for entry, kind in plan:
            cell, found = Cell(entry.name, name, kind or "", backbone), failure or frames[kind]
            run.planned.append(cell)
            if isinstance(found, Exception):
                run.fail(str(cell), found)
                continue
            try:
                job = Job.of(cell, entry, dataset.given(found, cache, first))
                if before := read_finished(cell.file(run.folder), job.identity):
                    run.cells[cell] = before
                elif here:
                    measured(job, run.folder, run.names)
                    _collect(run, job)
                else:
                    left.append(job)
            except Exception as error:  # costs this cell alone
                run.fail(str(cell), error)
    if not any(_readings(entry, first) for entry, _ in plan):
        return left
    try:
        rows = component_pictures(dataset.given(dataset.frames(None), first, first), caches)
        # Only the name is hidden: a picture's text may look like a path.
        run.components[name] = [{**row, "operation": run.names.hide(row["operation"])} for row in rows]
    except Exception as error:  # costs the pictures alone
        console.warn(f"no pictures of patch features of {name}: {type(error).__name__}: {error}")
    return left


def _cache_of(run: Benchmark, dataset: TestedDataset, backbone: NamedBackbone, hardware: Hardware) -> FeatureCache:
    data, settings = dataset.dataset.data, run.config.hardware
    return feature_cache(
        backbone.start.backbone,
        hardware,
        loader_workers(settings),
        Elsewhere.of(data.engine, settings, hardware, data.worker_count),
        folder=frozen_features(data.store, dataset.dataset.card.name, data.store_settings),
        preprocess=backbone.start.preprocess(run.config.image_size),
    )


def _extract(
    run: Benchmark,
    dataset: str,
    backbone: str,
    cache: FeatureCache,
    plan: Sequence[tuple[Entry, str | None]],
    frames: Mapping[str | None, LabelledFrames | Exception],
) -> Exception | None:
    """Have the features of all evaluations computed, once, and keep what that cost; gives what went wrong."""
    # At each size of the input, one pass gives the blocks that all evaluations read.
    blocks = dict[int, tuple[set[int], set[int]]]()
    wanted = dict[tuple[str | None, int], tuple[FeatureCache, LabelledFrames, bool]]()
    for entry, kind in plan:
        found = frames[kind]
        if isinstance(found, Exception):
            continue
        for at, *read in _readings(entry, cache):
            size = at.preprocess.image_size
            for all_read, new in zip(blocks.setdefault(size, (set(), set())), read, strict=True):
                all_read.update(new)
            wanted[kind, size] = at, found, any(read) or wanted.get((kind, size), (at, found, False))[2]
    if not wanted:
        return None
    order = sorted(wanted.values(), key=lambda each: not each[2])  # class tokens come with the patches
    began, cell = time.perf_counter(), Cell(FEATURES, dataset, "", backbone)
    identity = cache.identified().name
    known = read_finished(cell.file(run.folder), identity)
    try:
        for at, found, any_blocks in order:
            at.keep(found, *(map(sorted, blocks[at.preprocess.image_size]) if any_blocks else ()))
    except Exception as error:
        return error
    if known is None:
        count = max(len(found) for _, found, _ in order)
        known = Finished(identity, round(time.perf_counter() - began, 3), count, 0, ())
        write_finished(cell.file(run.folder), known, run.names)
    run.cells[cell] = known
    return None


def _readings(entry: Entry, cache: FeatureCache) -> list[Reading]:
    try:
        return entry.evaluation.reads(cache)
    except Exception:  # its cell says why, and costs no other
        return []


def _collect(run: Benchmark, job: Job) -> None:
    """Read what was measured, as a later call will read it."""
    finished = read_finished(job.cell.file(run.folder), job.identity)
    assert finished is not None
    run.cells[job.cell] = finished
    console.field("measured", f"{job.cell} ({finished.seconds:.1f} s)")


def _measure_elsewhere(run: Benchmark, jobs: Sequence[Job], hardware: Hardware, data: DataSettings) -> None:
    """Measure cells through `data.engine`, in any order; one that fails costs no other."""
    there = Elsewhere.of(data.engine, run.config.hardware, hardware, data.worker_count)
    assert there is not None
    size, folder = there.workers(jobs[0].given.features, len(jobs)), run.folder.resolve()
    waiting = {job.cell.file(folder): job for job in jobs}
    sent = {file: job.sent(there, size, folder, run.names) for file, job in waiting.items()}

    def failed(file: Path, error: SurgdinoError) -> None:
        run.fail(str(waiting.pop(file).cell), error)

    for file in spread(data.engine, size, measured_here, sent, {folder}, ahead=_AHEAD, failed=failed):
        if file in waiting:
            _collect(run, waiting[file])
    run.cells = {cell: run.cells[cell] for cell in run.planned if cell in run.cells}
