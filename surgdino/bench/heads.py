"""What the stages of a fine-tuning, its validations and its test take: a few steps of each, of its own task and labels,
on a few frames of a few videos. Of recordings these are pictures of noise, so that nothing has to be decoded."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from surgdino.datasets.manifest import Labels, Manifest, Video
from surgdino.datasets.masks import VideoMasks
from surgdino.frames.store import build_store
from surgdino.frames.video.decode import VideoInfo, sample_numbers
from surgdino.inputs.finetune import Checked
from surgdino.tasks.context import TaskContext, build_context
from surgdino.tasks.labelled_frames import labelled_frames, labels_of
from surgdino.tasks.training.batches import WholeVideos, targets_at
from surgdino.tasks.training.cut import Cutter
from surgdino.tasks.training.fit import fit
from surgdino.tasks.training.stage import Stage, StageTraining, resolve

_VIDEOS = {"train": 3, "val": 1, "test": 1}
_FRAMES = 16  # of a video
_STEPS, _SLOW = 8, 1.0  # steps that are measured, unless the first takes longer (in seconds)
_BATCH = 8  # pictures of a step that goes through the backbone
_NEVER = 10**9  # steps


@dataclass(frozen=True)
class StageCost:
    """A stage: the steps that it has at most, and the seconds of these and of all its validations; whether it is kept,
    or helps to choose."""

    name: str
    kept: bool
    steps: int
    training: float
    validating: float


@dataclass(frozen=True)
class Costs:
    """What one run takes beside decoding and passes of a frozen backbone.

    Attributes:
        tested: labelled frames of the test part; `testing`: seconds for them.
        features: bytes that are kept of a frame.
        state: bytes of the trainer's state.
    """

    stages: tuple[StageCost, ...]
    tested: int
    testing: float
    features: float
    state: int


def costs_of(found: Checked, infos: Mapping[str, VideoInfo], scratch: Path) -> Costs:
    """Measure them.

    Args:
        infos: what the videos' headers say, by video id.
        scratch: an empty folder.
    """
    labels, run = labels_of(found.manifest, found.task.LABELS), scratch / "run"
    numbers = {id: _labelled(info, labels, id, found) for id, info in infos.items()}
    context = _context(found, infos, numbers, scratch)
    ratios = {part: _Ratio.of(found.manifest.part(part), numbers, context) for part in context.parts}
    head = found.task.build_head(context).to(context.device)
    stages = tuple(_stage(each, found, context, ratios, run) for each in found.task.stages(context, head))
    test = context.parts["test"]
    testing = _seconds(lambda: [None for _ in found.task.predict(context, head, test)])
    rows = sum(len(frames) for frames in context.parts.values())
    features = _bytes(scratch / "features") / rows
    return Costs(
        stages, ratios["test"].labelled, testing * ratios["test"].frames, features, max(map(_bytes, run.iterdir()))
    )


@dataclass(frozen=True)
class _Ratio:
    """How many times more frames and videos a part has than what is measured on; its labelled frames."""

    frames: float
    videos: float
    labelled: int

    @classmethod
    def of(cls, manifest: Manifest, numbers: Mapping[str, np.ndarray], context: TaskContext) -> _Ratio:
        each = [len(numbers[video.id]) for video in manifest.videos if len(numbers.get(video.id, ()))]
        split = next(video.split for video in manifest.videos)
        few = context.parts[str(split)]
        return cls(sum(each) / len(few), len(each) / len(few.videos), sum(each))


def _labelled(info: VideoInfo, labels: Labels, video: str, found: Checked) -> np.ndarray:
    """The numbers of its frames that will be stored and have a label."""
    values = labels.values.get(video)
    if values is None:
        return np.empty(0, np.int64)
    numbers = sample_numbers(info.times, found.config.data.store_settings.fps)
    if isinstance(values, VideoMasks):
        return numbers[np.isin(numbers, values.numbers)]
    return numbers[values.at(numbers, info.times[np.searchsorted(info.numbers, numbers)])[0]]


def _context(
    found: Checked, infos: Mapping[str, VideoInfo], numbers: Mapping[str, np.ndarray], scratch: Path
) -> TaskContext:
    """As a run makes it, of a few frames of each part."""
    few = {part: _few(found.manifest.part(part), most, infos, numbers, scratch) for part, most in _VIDEOS.items()}
    manifest = replace(found.manifest, videos=tuple(video for videos in few.values() for video in videos))
    store = build_store(manifest, scratch / "store", found.config.data.store_settings, workers=1, progress=False)
    parts = {
        part: labelled_frames(manifest.part(part), store, found.task.LABELS) for part, videos in few.items() if videos
    }
    config = found.config
    return build_context(
        found.start.backbone,
        replace(config.hardware, loader_workers=0),
        scratch / "features",
        preprocess=found.preprocess,
        cutter=Cutter(found.preprocess.image_size, config.augment),
        card=found.card,
        classes=found.classes,
        train=config.train,
        tuning=config.backbone,
        parts=parts,
    )


def _few(
    manifest: Manifest, most: int, infos: Mapping[str, VideoInfo], numbers: Mapping[str, np.ndarray], scratch: Path
) -> list[Video]:
    """Videos of several operations, where there are some; of recordings, pictures with numbers that have labels."""
    known = [video for video in manifest.videos if len(numbers.get(video.id, ()))]
    first = {video.operation: video for video in reversed(known)}
    chosen = list(first.values())[:most]
    return [
        replace(video, pictures=video.pictures[: int(numbers[video.id][:_FRAMES][-1]) + 1])
        if video.pictures
        else replace(video, path=_noise(infos[video.id], numbers[video.id], scratch / video.id))
        for video in chosen
    ]


def _noise(info: VideoInfo, numbers: np.ndarray, folder: Path) -> Path:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in numbers[np.unique(np.linspace(0, len(numbers) - 1, _FRAMES).astype(int))].tolist():
        picture = cv2.resize(rng.integers(0, 256, (16, 16, 3), np.uint8), (info.width, info.height))
        cv2.imwrite(str(folder / f"{number:08d}.jpg"), picture)
    return folder


def _stage(stage: Stage, found: Checked, context: TaskContext, ratios: Mapping[str, _Ratio], folder: Path) -> StageCost:
    """The time of its steps on a few frames, brought to those of the whole run."""
    ratio, by_video = ratios["train"], isinstance(stage.data, WholeVideos)
    training = resolve(found.config.train, found.task.DEFAULTS, stage.defaults, overrides=stage.overrides)
    samples = round(len(stage.data) * (ratio.videos if by_video else ratio.frames))
    whole = training.batch_size
    batch = whole if by_video or not context.learns else min(whole, _BATCH)
    steps = training.total_steps(samples)
    training = replace(training, batch_size=batch, patience=0, validate_every=_NEVER, checkpoint_every=_NEVER)
    if isinstance(stage.data, WholeVideos):
        stage = replace(stage, data=_lengthened(stage.data, round(ratio.frames / ratio.videos)))
    step = _step(stage, training, context, folder) * whole / batch
    validating = 0.0
    if stage.validate is not None and "val" in ratios:
        stage.model.eval()
        each = _seconds(lambda: stage.validate(stage.model))  # type: ignore[misc]
        validating = max(1, steps // training.validation_steps(samples)) * each * ratios["val"].frames
    return StageCost(stage.name, stage.kept, steps, steps * step, validating)


def _lengthened(data: WholeVideos, times: int) -> WholeVideos:
    """Videos as long as those of the run: the few frames of each over and over."""
    frames, places = data.frames, range(len(data.frames.videos))
    rows = np.concatenate([np.tile(np.arange(frames.starts[k], frames.starts[k + 1]), times) for k in places])
    longer = replace(frames, index=frames.index[rows], starts=frames.starts * times)
    targets = {name: tensor.numpy() for name, tensor in targets_at(data.targets, rows).items()}
    return WholeVideos(np.asarray(data.features)[rows], longer, targets)


def _step(stage: Stage, training: StageTraining, context: TaskContext, folder: Path) -> float:
    """Seconds: of several steps less what one takes with all that is done once."""
    quiet = replace(stage, validate=None)

    def run(steps: int) -> float:
        place = folder / str(steps)
        place.mkdir(parents=True, exist_ok=True)
        return _seconds(lambda: fit(quiet, replace(training, steps=steps), place, hardware=context.hardware))

    once = run(1)
    if once > _SLOW:
        return once
    several = run(1 + _STEPS)
    return (several - once) / _STEPS if several > once else several / (1 + _STEPS)


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
