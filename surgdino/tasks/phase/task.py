"""Phase recognition: every frame has one of a few phases.

Two stages. `frame` trains a classifier of single frames, and as much of the backbone as shall learn. `temporal` trains
a model over the features that this backbone gives of whole videos; one that never looks ahead by default.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from surgdino import distributed
from surgdino.datasets.card import Card
from surgdino.datasets.manifest import Manifest
from surgdino.errors import SurgdinoError
from surgdino.metrics.phase import script_scores, strict_counts
from surgdino.tasks.context import TaskContext
from surgdino.tasks.labelled_frames import LabelledFrames, labels_of
from surgdino.tasks.phase.align import aligned, level_of
from surgdino.tasks.phase.files import write_phase
from surgdino.tasks.phase.head import FrameClassifier, TunedClassifier
from surgdino.tasks.phase.loss import frame_loss, median_frequency_weights, stages_loss
from surgdino.tasks.phase.temporal import TemporalSettings, build_temporal, open_temporal, run_through
from surgdino.tasks.scoring.panels import TaskScores, score_task
from surgdino.tasks.training.batches import Batch, FeatureSource, ImageSource, VideoSource
from surgdino.tasks.training.settings import resolve
from surgdino.tasks.training.stage import Stage
from surgdino.tasks.training.tuning import backbone_groups, head_groups

LABELS = "phase"
DEFAULTS = {"epochs": 10, "batch_size": 64, "lr": 1e-3, "weight_decay": 0.01, "patience": 10}
_FROZEN = {"epochs": 20, "batch_size": 256, "lr": 2e-3}
_TUNED = {"lr": 1e-4, "epochs": 5, "patience": 3, "drop_path": 0.1}
_TEMPORAL = {"epochs": 100, "lr": 5e-4, "warmup": 0.02, "patience": 20}
# A fresh classifier learns faster than a backbone that was trained before.
_HEAD_FACTOR = 10.0
_BLOCK = 1024  # frames that go through a temporal model at a time


@dataclass(frozen=True)
class Settings:
    """Key for key what configs/task/phase.yaml explains."""

    name: str = "phase"
    temporal: str = "tcn"
    tokens: Literal["cls", "cls+mean"] = "cls+mean"
    align: bool = False
    hidden: int = 0
    balance: Literal["median-frequency", "none"] = "median-frequency"
    smoothing: float = 0.0
    layers: int | None = None
    width: int | None = None
    window: int = 256
    dropout: float | None = None
    temporal_epochs: float | None = None
    temporal_lr: float | None = None

    def __post_init__(self) -> None:
        open_temporal(self.temporal)
        for key, holds in (
            ("hidden", self.hidden >= 0),
            ("smoothing", self.smoothing >= 0),
            ("temporal_epochs", self.temporal_epochs is None or self.temporal_epochs > 0),
            ("temporal_lr", self.temporal_lr is None or self.temporal_lr > 0),
        ):
            if not holds:
                expected = "more than 0" if key.startswith("temporal") else "0 or more"
                raise SurgdinoError(f"task.{key} cannot be used", expected=expected, found=getattr(self, key))

    @property
    def sizes(self) -> TemporalSettings:
        """Of the temporal model."""
        return TemporalSettings(layers=self.layers, width=self.width, window=self.window, dropout=self.dropout)


class PhaseHead(nn.Module):
    """Everything of the task's own: the classifier of single frames, and the temporal model where there is one."""

    def __init__(self, width: int, classes: int, settings: Settings) -> None:
        super().__init__()
        with_patches = settings.tokens == "cls+mean"
        self.frame = FrameClassifier(width, classes, with_patches=with_patches, hidden=settings.hidden)
        self.temporal = build_temporal(settings.temporal, self.frame.features, classes, settings.sizes)

    def probabilities(self, blocks: Iterator[Tensor]) -> Iterator[Tensor]:
        """Class probabilities [n, C] of one video, block by block, from pooled features [n, 2D]; in evaluation mode."""
        if self.temporal is None:
            return (self.frame(block).float().softmax(1) for block in blocks)
        return run_through(self.temporal, (self.frame.normed(block) for block in blocks))


class _OverVideo(nn.Module):
    """The temporal model on the features of one video as they come from the backbone; the norm before it is fixed."""

    def __init__(self, head: PhaseHead) -> None:
        super().__init__()
        assert head.temporal is not None
        self.norm, self.temporal = head.frame.normed, head.temporal

    def forward(self, pooled: Tensor) -> list[Tensor]:
        return self.temporal(self.norm(pooled))


def classes(card: Card, manifest: Manifest, settings: Settings) -> tuple[str, ...]:
    """The phases, in the order of their ids."""
    return labels_of(manifest, LABELS).classes


def build_head(context: TaskContext) -> nn.Module:
    """A fresh head for the context's backbone and classes."""
    head = PhaseHead(context.width, len(context.classes), context.settings)
    if context.settings.align:
        _check_alignable(context, head)
    return head


def stages(context: TaskContext, head: nn.Module) -> Iterator[Stage]:
    """`frame`, then `temporal` on the features of the backbone that the first one leaves."""
    assert isinstance(head, PhaseHead)
    if context.settings.align:
        context.say("task.align: every video is on its own level, so these numbers are of finished recordings")
    yield _frame_stage_tuned(context, head) if context.learns else _frame_stage(context, head)
    if head.temporal is not None:
        yield _temporal_stage(context, head)


def _check_alignable(context: TaskContext, head: PhaseHead) -> None:
    if head.temporal is not None and head.temporal.online:
        raise SurgdinoError(
            "task.align needs the whole video, which an online model must not see",
            place="task.temporal",
            expected="none, tcn_offline, transformer_offline",
            found=context.settings.temporal,
        )
    if context.learns:
        raise SurgdinoError(
            "task.align needs features that stay as they are", place="backbone", expected="frozen", found=context.tuning
        )


def _frame_stage(context: TaskContext, head: PhaseHead) -> Stage:
    train, weights = context.parts["train"], _class_weights(context)
    validation = _validation_features(context)

    def loss(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        return {"loss": frame_loss(model(batch["features"]), batch["targets"], weights)}

    def validate(model: nn.Module) -> dict[str, float]:
        assert validation is not None
        return _scores(context, {video: model(pooled) for video, pooled in validation.items()})

    source = FeatureSource(_pooled(context, train), _targets(train))
    groups = head_groups(head.frame)
    return Stage("frame", head.frame, groups, source, loss, validate if validation else None, _FROZEN)


def _frame_stage_tuned(context: TaskContext, head: PhaseHead) -> Stage:
    train, weights = context.parts["train"], _class_weights(context)
    model = TunedClassifier(context.backbone, head.frame)
    alone = context.alone()

    def loss(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        return {"loss": frame_loss(model(context.normalize(batch["images"])), batch["targets"], weights)}

    def validate(model: nn.Module) -> dict[str, float]:
        frames = alone.parts["val"]
        logits = torch.cat([head.frame(torch.cat([f.cls, f.mean], 1)) for f in alone.features.stream(frames)])
        return _scores(context, {video: logits[frames.span(k)] for k, video in enumerate(frames.videos)})

    source = ImageSource(train, context.cutter, _targets(train), workers=context.workers)
    layer_decay = resolve(context.train, DEFAULTS, _TUNED, overrides={}).layer_decay
    groups = [{**group, "lr_scale": _HEAD_FACTOR * group["lr_scale"]} for group in head_groups(head.frame)]
    groups += backbone_groups(context.backbone, layer_decay)
    return Stage("frame", model, groups, source, loss, validate if _has_validation(context) else None, _TUNED)


def _temporal_stage(context: TaskContext, head: PhaseHead) -> Stage:
    train, weights, settings = context.parts["train"], _class_weights(context), context.settings
    validation = _validation_features(context)

    def loss(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        return stages_loss(model(batch["features"][0]), batch["targets"][0], weights, settings.smoothing)

    def validate(model: nn.Module) -> dict[str, float]:
        assert validation is not None
        return _scores(context, {video: model(pooled)[-1] for video, pooled in validation.items()})

    model = _OverVideo(head)
    source = VideoSource(_pooled(context, train), train, _targets(train))
    chosen = {"epochs": settings.temporal_epochs, "lr": settings.temporal_lr}
    overrides = {key: value for key, value in chosen.items() if value is not None}
    # A whole video is a batch, as in TeCNO.
    overrides["batch_size"] = distributed.world_size()
    groups = head_groups(model)
    return Stage("temporal", model, groups, source, loss, validate if validation else None, _TEMPORAL, overrides)


def predict(context: TaskContext, head: nn.Module, frames: LabelledFrames) -> Iterator[tuple[str, np.ndarray]]:
    """(video id, float32 [n, C] class probabilities) of each video, its features read a block at a time."""
    assert isinstance(head, PhaseHead)
    rows = context.features.pooled_rows(frames)
    for place, video in enumerate(frames.videos):
        span = frames.span(place)
        starts = range(span.start, span.stop, _BLOCK)
        level = level_of(rows, span).transform if context.settings.align else np.asarray
        blocks = (_on(context, level(rows[start : min(start + _BLOCK, span.stop)])) for start in starts)
        with torch.inference_mode():
            yield video, torch.cat([block.cpu() for block in head.probabilities(blocks)]).numpy()


def evaluate(context: TaskContext, head: nn.Module, frames: LabelledFrames, folder: Path) -> TaskScores:
    """Every protocol's numbers; the predictions themselves go to `predictions/` in `folder`, one text file a video."""
    truths = {video: truth.astype(np.int64) for video, truth in frames.truths().items()}
    numbers, predictions = frames.numbers_of(), {}
    for video, probabilities in predict(context, head, frames):
        predictions[video] = probabilities.argmax(1)
        write_phase(folder / "predictions", video, numbers[video], predictions[video], context.classes)
    return score_task(
        LABELS,
        truths,
        predictions,
        classes=context.classes,
        operations=frames.operations,
        fps=labels_per_second(frames),
        frames=numbers,
        protocol="all",
    )


def labels_per_second(frames: LabelledFrames) -> float | None:
    """How many of the frames there are to a second of video; None where no video has two."""
    steps = [np.diff(frames.times[frames.span(place)]) for place in range(len(frames.videos))]
    steps = [each for each in steps if len(each)]
    return round(1 / float(np.median(np.concatenate(steps))), 6) if steps else None


def _targets(frames: LabelledFrames) -> np.ndarray:
    assert frames.targets is not None
    return frames.targets.astype(np.int64)


def _class_weights(context: TaskContext) -> Tensor | None:
    if context.settings.balance == "none":
        return None
    targets = _targets(context.parts["train"])
    weights = median_frequency_weights(targets, len(context.classes))
    return torch.from_numpy(weights / weights[targets].mean()).to(context.device)


def _has_validation(context: TaskContext) -> bool:
    return "val" in context.parts and len(context.parts["val"]) > 0


def _validation_features(context: TaskContext) -> dict[str, Tensor] | None:
    """Pooled features [n, 2D] of each validation video, held: they are looked at once an epoch."""
    if not _has_validation(context):
        return None
    frames = context.parts["val"]
    pooled = _pooled(context, frames)
    return {video: _on(context, pooled[frames.span(place)]) for place, video in enumerate(frames.videos)}


def _pooled(context: TaskContext, frames: LabelledFrames) -> np.ndarray:
    """float32 [n, 2D], what the task learns from."""
    pooled = context.features.pooled(frames)
    return aligned(pooled, frames) if context.settings.align else pooled


def _on(context: TaskContext, features: np.ndarray) -> Tensor:
    return torch.from_numpy(features).to(context.device)


def _scores(context: TaskContext, logits: dict[str, Tensor]) -> dict[str, float]:
    """Of the validation videos: accuracy, by which the best state is chosen, and F1, as the strict script has them."""
    truths = {video: truth.astype(np.int64) for video, truth in context.parts["val"].truths().items()}
    predictions = {video: values.argmax(1).cpu().numpy() for video, values in logits.items()}
    scores = script_scores(strict_counts(truths, predictions, len(context.classes)))
    return {"accuracy": scores["accuracy"], "f1": scores["f1"]}
