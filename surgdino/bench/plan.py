"""`surgdino VERB ... --plan`: an estimate of time and disk before a long run; only a scratch folder is written to.

What is measured here and now is decoding (a short excerpt of one video), a few training steps (on generated frames) and
a pass of the backbone; the rest is counted.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from surgdino import console, machine
from surgdino.backbone.vit import Backbone
from surgdino.bench import store as bench_store
from surgdino.bench.frames import BenchConfig
from surgdino.bench.heads import StageCost, costs_of
from surgdino.bench.loop import loading, run_steps
from surgdino.bench.step import opened
from surgdino.config import typed
from surgdino.datasets.card import Card
from surgdino.datasets.files import entries, is_image
from surgdino.datasets.manifest import Manifest, Video
from surgdino.engine.hardware import Hardware
from surgdino.engine.phases import open_phases
from surgdino.engine.settings import HardwareSettings
from surgdino.errors import SurgdinoError
from surgdino.frames.pool import probe_all
from surgdino.frames.store import StoreSettings, open_store
from surgdino.frames.video.decode import VideoInfo, sample_numbers
from surgdino.inputs.backbone import starting_backbone
from surgdino.inputs.backbones import open_backbones
from surgdino.inputs.configs import BenchmarkConfig, CurateConfig, FinetuneConfig, PretrainConfig
from surgdino.inputs.datasets import open_datasets
from surgdino.inputs.finetune import check
from surgdino.inputs.folds import are_several, planned_runs
from surgdino.inputs.settings import DataSettings, manifest_of
from surgdino.inputs.suite import open_data, open_suite
from surgdino.tasks.task import open_task
from surgdino.wording import counted, duration, size

_READERS = 4  # processes that read headers
_SECONDS = 2.0  # that training steps are measured for
_BATCH = 8  # pictures of a pass
_PROBED = 60.0  # seconds that measuring may take whatever its share
_WEIGHT = 4  # bytes
_STATE = 4  # copies of the weights in a trainer's state: student, teacher, and two moments of the optimiser
_KEPT = 2  # backbones of a run: the last, and the best by the probe


@dataclass(frozen=True)
class Source:
    """Videos whose frames are in one folder of a store."""

    manifest: Manifest
    folder: Path
    settings: StoreSettings


@dataclass(frozen=True)
class Line:
    """One part of a run: seconds and bytes, 0 where it takes none to speak of; `how` says where they are from."""

    what: str
    amount: str
    seconds: float
    size: float
    how: str


def main(verb: str, values: Mapping[str, Any]) -> int:
    """Print the plan of a verb with the composed configuration `values`; 0."""
    lines, place = _PLANS[verb](values)
    seconds, needed = sum(line.seconds for line in lines), sum(line.size for line in lines)
    lines.append(Line("all", "", seconds, needed, ""))
    rows = [
        (line.what, line.amount, duration(line.seconds) if line.seconds else "", _size(line.size), line.how)
        for line in lines
    ]
    console.grid(
        f"{verb}: a plan", ("part", "amount", "time", "disk", "from"), rows, bold=(len(rows) - 1,), left=(0, 1, 4)
    )
    there = next(folder for folder in (place, *place.parents) if folder.is_dir())
    free = shutil.disk_usage(there).free
    console.field("free", f"{size(free)} in {there}")
    if needed > free:
        console.warn(f"the disk lacks {size(needed - free)}: point data.store and run.dir at a larger one")
    console.say("An estimate: decoding differs between videos, and other programs take their part of the machine.")
    console.say("Nothing was written. The same command without --plan begins.")
    return 0


def _size(amount: float) -> str:
    return size(amount) if amount else ""


def _pretrain(values: Mapping[str, Any]) -> tuple[list[Line], Path]:
    config = typed(PretrainConfig, values, "")
    data = config.data
    frames, lines = _stored_of(config.dataset, data)
    phases = open_phases(
        config.phases, config.crops, config.train, config.augment, config.guide, config.model.patch_size
    )
    steps = sum(phase.steps for phase in phases) or config.train.total_steps(frames)
    bench = {
        **values,
        "bench": {"seconds": _SECONDS, "images_per_second": None},
        "data": {**values["data"], "root": None},
    }
    console.say("measuring training steps ...", "dim")
    with opened(BenchConfig.of(bench)) as (session, _), loading(session) as batches:
        run = run_steps(session, batches, _SECONDS)
        weights, networks = _weight(session.plan.backbone), _weight(session.networks["student"])
    note = "; the steps of each phase differ" if phases else ""
    batch = f"{steps:,} steps of {counted(config.train.batch_size, 'image')}"
    lines.append(Line("training", batch, steps * run.seconds, 0, f"{run.seconds:.2f} s a step, measured{note}"))
    kept = "last, best and the trainer's state"
    lines.append(Line("checkpoints", kept, 0, _KEPT * weights + _STATE * networks, "counted"))
    if config.probe.every and (config.probe.hold_out is not None or (data.split and config.probe.part)):
        lines.append(_probing(config, steps, steps * run.seconds, session.plan.backbone))
    return lines, data.store.absolute()


def _probing(config: PretrainConfig, steps: int, training: float, backbone: Backbone) -> Line:
    """All that is measured while it trains, at most a share of its time or a minute."""
    probe = config.probe
    rate, _ = _passes(backbone, config.crops.global_size, config.hardware)
    times = steps // probe.every + 1
    seconds = times * (1 + probe.both) * probe.frames / rate
    most = max(probe.share * training, _PROBED)
    how = f"at most {probe.share:.0%} of the time" if seconds > most else f"{rate:.1f} frames/s, measured"
    return Line("measuring", f"{times:,} x {counted(probe.frames, 'frame')}", min(seconds, most), 0, how)


def _finetune(values: Mapping[str, Any]) -> tuple[list[Line], Path]:
    config = typed(FinetuneConfig, values, "")
    data, card = config.data, Card.from_dict(config.dataset)
    several = are_several(data, config.train)
    one = replace(data, split=None) if several else data
    frames, lines = _stored(
        [Source(manifest_of(card, one), data.store, data.store_settings)], data.worker_count, data.decoder
    )
    runs = planned_runs(card, data, config.train, open_task(config.task).LABELS) if several else []
    first = typed(FinetuneConfig, runs[0].settings(values, None, "plain"), "") if runs else config
    found = check(replace(first, run=replace(first.run, names="plain")))  # pseudonyms would be written down
    rate, _ = _passes(found.start.backbone, found.preprocess.image_size, config.hardware)
    console.say("measuring the head ...", "dim")
    probed = zip(found.manifest.videos, probe_all(found.manifest.videos, data.decoder, _READERS), strict=True)
    infos = {video.id: info for video, info in probed if isinstance(info, VideoInfo)}
    with tempfile.TemporaryDirectory() as scratch, console.warnings_kept(quiet=True):
        costs = costs_of(found, infos, Path(scratch))
    times, each = max(len(runs), 1), f" in each of {len(runs)} runs" if runs else ""
    if config.backbone == "frozen":
        how = f"{rate:.1f} frames/s, measured"
        lines.append(Line("features", counted(frames, "frame"), frames / rate, frames * costs.features, how))
    groups: dict[str, list[StageCost]] = {}
    for stage in costs.stages:
        groups.setdefault(stage.name if stage.kept else "choice", []).append(stage)
    for name, stages in groups.items():
        several_stages = f"{len(stages)} stages, " if len(stages) > 1 else ""
        amount = f"{several_stages}at most {counted(sum(one.steps for one in stages), 'step')}{each}"
        lines.append(Line(name, amount, times * sum(one.training for one in stages), 0, "a few steps, measured"))
    if validating := sum(stage.validating for stage in costs.stages):
        of_stages = f"of {counted(len(costs.stages), 'stage')}{each}"
        lines.append(Line("validations", of_stages, times * validating, 0, "measured"))
    lines.append(Line("test", f"{counted(costs.tested, 'frame')}{each}", times * costs.testing, 0, "measured"))
    size = times * (_KEPT * _weight(found.start.backbone) + costs.state)
    lines.append(Line("checkpoints", "last, best and the trainer's state", 0, size, "counted"))
    return lines, data.store.absolute()


def _curate(values: Mapping[str, Any]) -> tuple[list[Line], Path]:
    config = typed(CurateConfig, values, "")
    data = config.data
    frames, lines = _stored_of(config.dataset, data)
    start = starting_backbone(config.model, config.checkpoint)
    rate, width = _passes(start.backbone, start.preprocess(config.image_size).image_size, config.hardware)
    lines.append(_features(frames, rate, width))
    lines.append(Line("duplicates, clusters", "", 0, 0, "not counted"))
    return lines, data.store.absolute()


def _benchmark(values: Mapping[str, Any]) -> tuple[list[Line], Path]:
    config = typed(BenchmarkConfig, values, "")
    datasets, _ = open_data(open_suite(config.suite), config.data)
    backbones = open_backbones(config.backbones)
    sources = [
        Source(manifest_of(each.card, each.data), each.data.store, each.data.store_settings) for each in datasets
    ]
    first = datasets[0].data
    frames, lines = _stored(sources, first.worker_count, first.decoder)
    for each in backbones:
        side = each.start.preprocess(config.image_size).image_size
        rate, width = _passes(each.start.backbone, side, config.hardware)
        lines.append(replace(_features(frames, rate, width), what=f"features of {each.name}"))
    lines.append(Line("evaluations", "", 0, 0, "not counted"))
    return lines, first.store.absolute()


_PLANS = {"pretrain": _pretrain, "finetune": _finetune, "curate": _curate, "benchmark": _benchmark}


def _stored_of(dataset: Mapping[str, Any], data: DataSettings) -> tuple[int, list[Line]]:
    """The same of a `dataset` and a `data` section, `data.also` among it."""
    datasets = open_datasets(Card.from_dict(dict(dataset)), data)
    sources = [Source(each.manifest, each.folder, each.settings) for each in datasets]
    return _stored(sources, data.worker_count, data.decoder)


def _stored(sources: Sequence[Source], workers: int, decoder: str) -> tuple[int, list[Line]]:
    """How many frames there will be, and what building their store takes."""
    ready = waiting = 0
    left: list[tuple[int, Video, Source]] = []
    for source in sources:
        missing = []
        for video in source.manifest.videos:
            try:
                one = open_store(source.folder, replace(source.manifest, videos=(video,)), source.settings)
                ready += len(one)
            except SurgdinoError:  # not stored yet, or out of date
                missing.append(video)
        for video, count in _counts(missing, decoder, source.settings):
            left.append((count, video, source))
            waiting += count
    lines = [Line("frames", f"{counted(ready, 'frame')} stored already", 0, 0, "")] if ready else []
    if left:
        lines.append(_decoding(left, waiting, workers))
    return ready + waiting, lines


def _counts(videos: Sequence[Video], decoder: str, settings: StoreSettings) -> Iterator[tuple[Video, int]]:
    """The frames that will be stored of each video, by its header."""
    with console.bar("reading the videos", len(videos), shown=bool(videos), stays=False) as bar:
        for video, info in zip(videos, probe_all(videos, decoder, _READERS), strict=True):
            bar.advance()
            if isinstance(info, VideoInfo):
                yield video, len(sample_numbers(info.times, settings.fps))
            else:
                console.warn(info.line())


def _decoding(left: Sequence[tuple[int, Video, Source]], waiting: int, workers: int) -> Line:
    """Of all frames that are not stored, by an excerpt of the shortest video that holds a few."""
    console.say("measuring decoding ...", "dim")
    _, video, source = min(left, key=lambda each: (each[0] < _BATCH, each[0]))
    with tempfile.TemporaryDirectory() as scratch:
        excerpt = _some_pictures if video.is_image_folder else bench_store.excerpt
        path = excerpt(video.path, Path(scratch))
        began = time.perf_counter()
        shard = bench_store.store(path, source.settings, 1, Path(scratch))
        took, amount = time.perf_counter() - began, shard.stat().st_size
        only = replace(source.manifest, root=path.parent, videos=(Video("video", "operation", path, None),))
        frames = max(len(open_store(Path(scratch) / "store", replace(only, dataset="benchmark"), source.settings)), 1)
    processes = min(workers or machine.cores(), len(left))
    seconds = waiting / frames * took / processes
    what = f"{counted(waiting, 'frame')} of {counted(len(left), 'video')}"
    how = f"{frames / took:.1f} frames/s in each of {counted(processes, 'process', 'processes')}, measured"
    return Line("decoding", what, seconds, amount / frames * waiting, how)


def _some_pictures(folder: Path, scratch: Path) -> Path:
    """A few pictures of a folder, linked into one of their own."""
    target = scratch / "pictures"
    target.mkdir()
    for number, picture in enumerate([path for path in entries(folder) if is_image(path)][:_BATCH]):
        (target / f"{number:06d}{picture.suffix}").symlink_to(picture.resolve())
    return target


def _weight(network: nn.Module) -> int:
    """Bytes of its parameters."""
    return sum(parameter.numel() for parameter in network.parameters()) * _WEIGHT


def _features(frames: int, rate: float, width: int) -> Line:
    """Class token and mean patch token of every frame, as float32."""
    how = f"{rate:.1f} frames/s, measured"
    return Line("features", counted(frames, "frame"), frames / rate, frames * 2 * width * _WEIGHT, how)


def _passes(backbone: Backbone, side: int, hardware: HardwareSettings) -> tuple[float, int]:
    """Frames/s of passes through the backbone on random pictures, and its width."""
    here = Hardware.of(hardware)
    backbone = backbone.to(here.device).eval()
    pictures = torch.from_numpy(np.random.default_rng(0).random((_BATCH, 3, side, side), np.float32)).to(here.device)
    best = float("inf")
    with torch.no_grad(), here.autocast():
        for _ in range(3):
            began = time.perf_counter()
            backbone(pictures).cls.float().sum().item()  # waits for the device
            best = min(best, time.perf_counter() - began)
    return _BATCH / best, backbone.embed_dim
