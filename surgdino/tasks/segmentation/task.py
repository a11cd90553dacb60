"""Segmentation: which classes each pixel shows. Classes may overlap, and a picture may be labelled for some alone.

One stage. A frozen backbone's patch tokens are computed once, and a head over them is trained in seconds (`linear`) or
minutes (`decoder`); with a backbone that learns, or with windows, pictures and masks are cut and flipped together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from surgdino.datasets.card import Card
from surgdino.datasets.files import is_image
from surgdino.datasets.manifest import Manifest
from surgdino.errors import SurgdinoError
from surgdino.metrics.segmentation import score_segmentation
from surgdino.tasks.context import TaskContext
from surgdino.tasks.features.files import FeatureRows
from surgdino.tasks.labelled_frames import LabelledFrames, labels_of
from surgdino.tasks.scoring.panels import TaskScores
from surgdino.tasks.segmentation.files import write_masks
from surgdino.tasks.segmentation.heads import open_head
from surgdino.tasks.segmentation.inference import Masks, Segmenter
from surgdino.tasks.segmentation.loss import LossName, MaskLoss, class_weights
from surgdino.tasks.segmentation.network import DenseNetwork
from surgdino.tasks.segmentation.pictures import ReadPictures, TokenSource
from surgdino.tasks.segmentation.targets import CutTargets, MaskTargets, shown_classes, target_side
from surgdino.tasks.segmentation.windows import WindowCutter
from surgdino.tasks.training.batches import Batch, ImageSource
from surgdino.tasks.training.settings import resolve
from surgdino.tasks.training.stage import Stage, Validate
from surgdino.tasks.training.tuning import backbone_groups, head_groups

LABELS = "masks"
DEFAULTS = {"epochs": 20, "batch_size": 32, "lr": 2e-3, "weight_decay": 0.01, "patience": 10}
_TUNED = {"epochs": 20, "batch_size": 16, "lr": 2e-4, "layer_decay": 0.75, "drop_path": 0.1, "patience": 5}
# A fresh head learns faster than a backbone that was trained before.
_HEAD_FACTOR = 10.0


@dataclass(frozen=True)
class Settings:
    """Key for key what configs/task/segmentation.yaml explains."""

    name: str = "segmentation"
    head: str = "linear"
    maps: int = 64
    loss: LossName = "dice_ce"
    balance: Literal["inverse-root", "none"] = "inverse-root"
    window: int | None = None
    overlap: float = 0.5

    def __post_init__(self) -> None:
        open_head(self.head)
        for key, holds, expected in (
            ("maps", self.maps >= 1, "1 or more"),
            ("window", self.window is None or self.window >= 1, "pixels, 1 or more"),
            ("overlap", 0 <= self.overlap < 1, "from 0 to below 1"),
        ):
            if not holds:
                raise SurgdinoError(f"task.{key} cannot be used", expected=expected, found=getattr(self, key))


def classes(card: Card, manifest: Manifest, settings: Settings) -> tuple[str, ...]:
    """What the masks show, in the order of the channels: with `data.organ` that organ alone."""
    return labels_of(manifest, LABELS).classes


def build_head(context: TaskContext) -> nn.Module:
    """A fresh head for the context's backbone and classes.

    Raises:
        SurgdinoError: a window that doesn't divide into patches.
    """
    window, patch = context.settings.window, context.backbone.patch_size
    if window is not None and window % patch:
        fix = f"use task.window={max(round(window / patch), 1) * patch}"
        raise SurgdinoError(
            "windows do not divide into patches",
            place="task.window",
            expected=f"a multiple of {patch}",
            found=window,
            fix=fix,
        )
    module, settings = open_head(context.settings.head), context.settings
    return module.build(context.width, len(_layers(context)), len(context.classes), settings.maps)


def stages(context: TaskContext, head: nn.Module) -> Iterator[Stage]:
    """One: the head, with as much of the backbone as shall learn."""
    yield _cached_stage(context, head) if _caches(context) else _picture_stage(context, head)


def _cached_stage(context: TaskContext, head: nn.Module) -> Stage:
    train, grid = context.parts["train"], (context.grid, context.grid)
    module = open_head(context.settings.head)
    tokens = context.features.patches(train, _layers(context))
    targets = MaskTargets(train, context.classes, target_side(context.image_size), context.workers)
    objective = _objective(context)

    def loss(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        images = context.normalize(batch["images"]) if module.IMAGES else None
        return objective(model(batch["tokens"], grid, images), batch)

    pictures = ReadPictures(train, context.preprocess) if module.IMAGES else None
    source = TokenSource(tokens, targets, pictures, context.workers)
    return Stage("head", head, head_groups(head), source, loss, _validation(context, head), module.DEFAULTS)


def _picture_stage(context: TaskContext, head: nn.Module) -> Stage:
    train, settings = context.parts["train"], context.settings
    cutter = context.cutter
    if settings.window is not None:
        cutter = WindowCutter(settings.window, cutter.augment)
    network = DenseNetwork(context.backbone, head, _layers(context))
    objective = _objective(context)

    def loss(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        return objective(model(context.normalize(batch["images"])), batch)

    targets = CutTargets(train, context.classes)
    source = ImageSource(train, cutter, read_targets=targets, workers=context.workers)
    groups, defaults = head_groups(head), open_head(settings.head).DEFAULTS
    if context.learns:
        defaults = _TUNED
        decay = resolve(context.train, DEFAULTS, defaults, overrides={}).layer_decay
        groups = [{**group, "lr_scale": _HEAD_FACTOR * group["lr_scale"]} for group in groups]
        groups += backbone_groups(context.backbone, decay)
    return Stage("head", network, groups, source, loss, _validation(context, head), defaults)


def _objective(context: TaskContext) -> partial:
    """(logits, batch) -> what a stage's loss returns."""
    weights = None
    if context.settings.balance != "none":
        weights = class_weights(torch.from_numpy(shown_classes(context.parts["train"], context.classes)))
    return partial(_masked_loss, MaskLoss(context.settings.loss, weights).to(context.device))


def _masked_loss(loss: MaskLoss, logits: Tensor, batch: Batch) -> dict[str, Tensor]:
    return {"loss": loss(logits.float(), batch["masks"].float() / 255, batch["labelled"])}


def _validation(context: TaskContext, head: nn.Module) -> Validate | None:
    """Mean Dice and IoU at the pictures' own size, as in `evaluate` but without HD95, which takes longer."""
    frames = context.parts.get("val")
    if frames is None or not len(frames):
        return None
    segmenter, tokens = _segmenter(context.alone(), head), _tokens(context, frames)

    def validate(model: nn.Module) -> dict[str, float]:
        tally = segmenter.tally(frames, tokens, hd95=False)
        owners = [frames.operations[video] for video, _ in tally.images]
        scores = score_segmentation(list(tally.images.values()), context.classes, owners).scores
        return {"dice": scores["dice"], "iou": scores["iou"]}

    return validate


def predict(context: TaskContext, head: nn.Module, frames: LabelledFrames) -> Masks:
    """(video id, frame number, bool [C, H, W] of the picture's own size) of each frame."""
    # What nobody labelled is looked at once: its tokens are not worth keeping.
    tokens = _tokens(context, frames) if frames.labels is not None else None
    return _segmenter(context, head).masks(frames, tokens)


def evaluate(context: TaskContext, head: nn.Module, frames: LabelledFrames, folder: Path) -> TaskScores:
    """Dice, IoU and HD95 at the pictures' own size; the masks go to `predictions/` in `folder`, as PNG."""
    alone = _pictures(frames)

    def write(video: str, number: int, masks: np.ndarray) -> None:
        write_masks(folder / "predictions", video, None if video in alone else number, masks, context.classes)

    return _segmenter(context, head).tally(frames, _tokens(context, frames), look=write).scores()


def _pictures(frames: LabelledFrames) -> set[str]:
    """The videos that are one picture, so that their files need no frame number."""
    return {video.id for video in frames.store.videos if is_image(Path(video.shard.header["source"]["path"]))}


def _layers(context: TaskContext) -> tuple[int, ...]:
    return open_head(context.settings.head).layers(context.backbone.depth)


def _caches(context: TaskContext) -> bool:
    """Whether the head learns from tokens that are computed once."""
    return not context.learns and context.settings.window is None


def _tokens(context: TaskContext, frames: LabelledFrames) -> FeatureRows | None:
    return context.features.patches(frames, _layers(context)) if _caches(context) else None


def _segmenter(context: TaskContext, head: nn.Module) -> Segmenter:
    settings = context.settings
    images = open_head(settings.head).IMAGES
    return Segmenter(context, head, _layers(context), images, settings.window, settings.overlap)
