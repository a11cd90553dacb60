"""Segmentation: which classes each pixel shows. Classes may overlap, and a picture may be labelled for some alone.

One stage. A frozen backbone's patch tokens are computed once, and a head over them is trained in seconds (`linear`) or
minutes (`decoder`); with a backbone that learns, or with windows, pictures and masks are cut and flipped together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from surgdino.csv_files import write_csv
from surgdino.datasets.files import is_image
from surgdino.datasets.masks import read_masks
from surgdino.errors import SurgdinoError
from surgdino.exports.graph import Graph
from surgdino.metrics.scores import TaskScores
from surgdino.metrics.segmentation import class_means, stacked
from surgdino.paths import file_of
from surgdino.tasks.context import TaskContext
from surgdino.tasks.labelled_frames import LabelledFrames
from surgdino.tasks.prediction import Prediction
from surgdino.tasks.request import PredictRequest
from surgdino.tasks.segmentation.files import read_written, write_masks
from surgdino.tasks.segmentation.heads import DenseHead, open_head
from surgdino.tasks.segmentation.inference import DenseNetwork, Segmenter
from surgdino.tasks.segmentation.loss import ExclusiveLoss, MaskLoss, class_weights
from surgdino.tasks.segmentation.overlay import overlay, write_overlay
from surgdino.tasks.segmentation.score import SegmentationScoring
from surgdino.tasks.segmentation.settings import SegmentationSettings
from surgdino.tasks.segmentation.targets import (
    CutTargets,
    MaskTargets,
    WindowCutter,
    placements,
    refuse_overlap,
    shown_classes,
    target_side,
)
from surgdino.tasks.task import Pictures, Task
from surgdino.tasks.training.batches import Batch, FrameFeatures, FrameImages
from surgdino.tasks.training.stage import Stage, Validate
from surgdino.tasks.training.tuning import head_groups, tuned_groups

_TUNED = {"epochs": 20, "batch_size": 16, "lr": 2e-4, "layer_decay": 0.75, "drop_path": 0.1, "patience": 5}


@dataclass(frozen=True, repr=False)
class Segmentations(Prediction):
    """Attributes:
    masks: of each frame bool [C, H, W], of the picture's own size; all are held, a megabyte and more each.
    """

    masks: tuple[np.ndarray, ...]

    @property
    def areas(self) -> np.ndarray:
        """float64 [n, C], the share of each picture that a class covers."""
        return np.array([masks.mean((1, 2)) for masks in self.masks]).reshape(len(self), len(self.classes))


class SegmentationTask(Task[SegmentationSettings, tuple[int, np.ndarray]]):
    """Masks are predicted picture by picture, and never held: `predict` gives (video, (frame number, masks))."""

    Settings, LABELS = SegmentationSettings, "masks"
    DEFAULTS: ClassVar = {"epochs": 20, "batch_size": 32, "lr": 2e-3, "weight_decay": 0.01, "patience": 10}
    SINGLE_IMAGES, SMOOTHINGS = True, ("propagation",)
    scoring = SegmentationScoring()

    def build_head(self, context: TaskContext) -> DenseHead:
        """The head that the settings name; refuses a window that does not divide into patches."""
        settings, patch = self.settings, context.backbone.patch_size
        if settings.window is not None and settings.window % patch:
            raise SurgdinoError(
                "windows do not divide into patches",
                place="task.window",
                expected=f"a multiple of {patch}",
                found=settings.window,
                fix=f"use task.window={max(round(settings.window / patch), 1) * patch}",
            )
        kind = open_head(settings.head)
        planes = len(context.classes) + (settings.classes == "exclusive")
        return kind(context.width, len(kind.layers(context.backbone.depth)), planes, settings.maps)

    def stages(self, context: TaskContext, head: nn.Module) -> Iterator[Stage]:
        """One: the head, with as much of the backbone as shall learn."""
        assert isinstance(head, DenseHead)
        if self.settings.classes == "exclusive":
            refuse_overlap(context.parts["train"], context.classes)
        stage = _cached_stage if not context.learns and self.settings.window is None else _picture_stage
        yield stage(context, self.settings, head)

    def predict(
        self, context: TaskContext, head: nn.Module, frames: LabelledFrames
    ) -> Iterator[tuple[str, tuple[int, np.ndarray]]]:
        """(video id, (frame number, bool [C, H, W] of the picture's own size)) of each frame."""
        segmenter = _segmenter(context, self.settings, head)
        for video, number, masks in segmenter.masks(frames, segmenter.tokens(frames)):
            yield video, (number, masks)

    def predicted(
        self, context: TaskContext, head: nn.Module, frames: LabelledFrames
    ) -> Iterator[tuple[str, tuple[int, np.ndarray]]]:
        """Masks are decided after probabilities are averaged, at the pictures' own size."""
        segmenter = self._together(context, head)
        for video, number, masks in segmenter.masks(frames, segmenter.tokens(frames)):
            yield video, (number, masks)

    def _together(self, context: TaskContext, head: nn.Module) -> Segmenter:
        for each in self.members:
            if each.task.settings.classes != self.settings.classes:
                expected, found = self.settings.classes, each.task.settings.classes
                raise SurgdinoError(
                    "these runs decide in two ways", place="task.classes", expected=expected, found=found
                )
        others = [_segmenter(each.context, each.task.settings, each.head) for each in self.members[1:]]
        smooth = self.smoothing == "propagation"
        if smooth and self.settings.window is not None:
            found = f"task.window={self.settings.window}"
            raise SurgdinoError("masks are not propagated between windows", found=found, fix="use smoothing=none")
        return replace(_segmenter(context, self.settings, head), others=others, smooth=smooth)

    def evaluate(self, context: TaskContext, head: nn.Module, frames: LabelledFrames, folder: Path) -> TaskScores:
        """Dice, IoU and HD95 at the pictures' own size; the masks go to `predictions/` in `folder`, as PNG."""
        # Videos that are one picture: their files need no frame number.
        alone = {video.id for video in frames.store.videos if is_image(Path(video.shard.header["source"]["path"]))}

        def write(video: str, number: int, masks: np.ndarray) -> None:
            write_masks(folder / "predictions", video, None if video in alone else number, masks, context.classes)

        segmenter = self._together(context, head)
        return segmenter.tally(frames, segmenter.tokens(frames), on_image=write).scores()

    def write(self, request: PredictRequest) -> dict[str, Path]:
        """PNG masks of the picture's own size, overlays, and a table of areas, picture by picture."""
        classes, folder = request.context.classes, request.folder
        alone = len(request.source.videos) > 1 or is_image(request.source.videos[0].path)

        def rows() -> Iterator[list[object]]:
            predicted = self.predicted(request.context, request.head, request.frames)
            for (video, (number, masks)), frame in zip(predicted, request.pictures(), strict=True):
                write_masks(folder / "masks", video, None if alone else number, masks, classes)
                name = video if alone else f"{video}/{number:06d}"
                write_overlay(file_of(folder / "overlays", name, ".jpg"), frame.image, masks, classes)
                yield [video, number, f"{frame.time:.3f}", *(f"{share:.5f}" for share in masks.mean((1, 2)))]

        table = write_csv(file_of(folder, request.source.name, ".csv"), ["video", "frame", "seconds", *classes], rows())
        return {"table": table, "masks": folder / "masks", "pictures": folder / "overlays"}

    def graphs(self, context: TaskContext, head: nn.Module) -> tuple[Graph, ...]:
        """`logits` of the masks at the head's own resolution; of a window where it looks through one."""
        assert isinstance(head, DenseHead)
        exclusive, side = self.settings.classes == "exclusive", self.settings.window or context.image_size
        planes = (*(("background",) if exclusive else ()), *context.classes)
        network = DenseNetwork(context.backbone, head).eval()
        with torch.no_grad():
            small = network(torch.zeros(1, 3, side, side)).shape[2:]
        outputs = {"logits": f"[B, {len(planes)}, {small[0]}, {small[1]}], of the classes, over the whole picture"}
        return (Graph("model", _Alone(network), (3, side, side), outputs, classes={"logits": planes}),)

    def said(
        self, context: TaskContext, head: nn.Module, frames: LabelledFrames, images: Tensor
    ) -> Mapping[str, np.ndarray]:
        """The logits from which `predict` decides; through a window those of the network that it moves."""
        assert isinstance(head, DenseHead)
        if self.settings.window is not None:
            with torch.no_grad():
                return {"logits": DenseNetwork(context.backbone, head).eval()(images).numpy()}
        return {"logits": np.stack(list(_segmenter(context, self.settings, head).logits(frames)))}

    def remarks(self) -> list[str]:
        """From logits to masks."""
        settings = self.settings
        decided = "the class of the highest plane" if settings.classes == "exclusive" else "each class above 0"
        found = [f"Masks: the logits resized bilinearly to the picture, then {decided}"]
        if settings.window is not None:
            found.append(
                f"It looks through windows of {settings.window} pixels of the frames as they were stored, overlapping "
                f"by {settings.overlap:.0%}, and averages with the weights of a Gaussian"
            )
        return found

    def prediction(self, request: PredictRequest) -> Segmentations:
        """The masks."""
        found = self.predicted(request.context, request.head, request.frames)
        return Segmentations.of(request, self.name, masks=tuple(masks for _, (_, masks) in found))

    def pictures(self, frames: LabelledFrames, predictions: Path, classes: Sequence[str]) -> Pictures:
        """The stored part of the picture, and truth and prediction over it."""
        places, stored = placements(frames), super().pictures(frames, predictions, classes)

        def draw(row: int) -> dict[str, np.ndarray]:
            video, shown = frames.video_of[row], stored(row)
            truth = read_masks(frames.masks(row), classes)[0]
            prediction = read_written(predictions, frames.videos[video], int(frames.numbers[row]), classes)
            place, image = places[video], shown["frame"]
            for name, masks in (("truth", truth), ("prediction", prediction)):
                shown[name] = overlay(image, place.to_frame(masks, place.stored) > 127, classes)
            return shown

        return draw

    def variant(self) -> str:
        """The head."""
        return self.settings.head


class _Alone(nn.Module):
    """A network with one output, as a program has them."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor]:
        return (self.network(images).float(),)


def _cached_stage(context: TaskContext, settings: SegmentationSettings, head: DenseHead) -> Stage:
    train, grid = context.parts["train"], (context.grid, context.grid)
    tokens = _segmenter(context, settings, head).tokens(train)
    assert tokens is not None  # the backbone is frozen, the frames have labels
    masks = MaskTargets(train, context.classes, target_side(context.image_size), context.workers)
    objective, places = _objective(context, settings)

    def loss(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        images = context.normalize(batch["images"]) if head.reads_images else None
        return objective(model(batch["features"], grid, images), batch)

    targets = {"masks": masks, "labelled": masks.labelled}
    images = (train, context.preprocess) if head.reads_images else None
    source = FrameFeatures(tokens, targets, images=images, workers=context.workers)
    validate = _validation(context, settings, head)
    return Stage("head", head, head_groups(head), source, loss, validate, head.defaults, places=places)


def _picture_stage(context: TaskContext, settings: SegmentationSettings, head: DenseHead) -> Stage:
    train = context.parts["train"]
    cutter = context.cutter
    if settings.window is not None:
        cutter = WindowCutter(settings.window, cutter.augment)
    network = DenseNetwork(context.backbone, head)
    objective, places = _objective(context, settings)

    def loss(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        return objective(model(context.normalize(batch["images"])), batch)

    targets = CutTargets(train, context.classes)
    source = FrameImages(train, cutter, read_targets=targets, workers=context.workers)
    groups, defaults = head_groups(head), head.defaults
    if context.learns:
        defaults = _TUNED
        layers = SegmentationTask.DEFAULTS, defaults
        groups = tuned_groups(head, context.backbone, context.train, *layers, head_factor=10)
    return Stage("head", network, groups, source, loss, _validation(context, settings, head), defaults, places=places)


Objective = Callable[[Tensor, Batch], dict[str, Tensor]]


def _objective(context: TaskContext, settings: SegmentationSettings) -> tuple[Objective, Callable[[Batch], Batch]]:
    """(logits, batch) -> what a stage's loss returns; and its `places`."""
    weights = None
    if settings.balance != "none":
        weights = class_weights(torch.from_numpy(shown_classes(context.parts["train"], context.classes)))
    kind = ExclusiveLoss if settings.classes == "exclusive" else MaskLoss
    loss = kind(settings.loss, weights).to(context.device)

    def objective(logits: Tensor, batch: Batch) -> dict[str, Tensor]:
        return {"loss": loss(logits.float(), batch["masks"].float() / 255, batch["places"])}

    return objective, lambda batch: {"places": loss.places(batch["labelled"])}


def _validation(context: TaskContext, settings: SegmentationSettings, head: nn.Module) -> Validate | None:
    """Mean Dice and IoU at the pictures' own size, as in `evaluate` but without HD95, which takes longer."""
    frames = context.parts.get("val")
    if frames is None:
        return None
    tokens = _segmenter(context, settings, head).tokens(frames)  # by all processes together
    segmenter = _segmenter(context.alone(), settings, head)

    def validate(model: nn.Module) -> dict[str, float]:
        images = list(segmenter.tally(frames, tokens, hd95=False).images.values())
        scores = class_means(stacked(images, context.classes), np.arange(len(images)))
        return {"dice": scores["dice"], "iou": scores["iou"]}

    return validate


def _segmenter(context: TaskContext, settings: SegmentationSettings, head: nn.Module) -> Segmenter:
    assert isinstance(head, DenseHead)
    return Segmenter(context, head, settings.window, settings.overlap, settings.classes == "exclusive")
