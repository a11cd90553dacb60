"""Instances: each object of a picture with its class, box and mask.

One stage. Over a frozen backbone a heat-map of centres is learnt from patch tokens that are computed once; with a
backbone that learns, queries go through its last blocks, and pictures, boxes and masks are cut and flipped together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from surgdino.backbone.vit import Backbone
from surgdino.csv_files import write_csv
from surgdino.datasets.objects import OBJECTS
from surgdino.errors import SurgdinoError
from surgdino.exports.graph import Graph, Unpacked
from surgdino.metrics.scores import TaskScores
from surgdino.paths import file_of
from surgdino.tasks.context import TaskContext, View
from surgdino.tasks.features.files import FeatureRows
from surgdino.tasks.instances.coco import Row, Truth, from_runs, read_found, read_truth, write_results
from surgdino.tasks.instances.fusion import fused
from surgdino.tasks.instances.heads import InstanceHead
from surgdino.tasks.instances.heads.centre import CentreHead
from surgdino.tasks.instances.heads.queries import QueryHead
from surgdino.tasks.instances.inference import DetectionNetwork, Detector, picture_names, truth_of
from surgdino.tasks.instances.picture import drawn, write_picture
from surgdino.tasks.instances.score import InstancesScoring, average_precision, scored
from surgdino.tasks.instances.settings import InstancesSettings
from surgdino.tasks.instances.targets import Beside, CutObjects, Told, has_regions_alone, stored_objects
from surgdino.tasks.labelled_frames import LabelledFrames
from surgdino.tasks.prediction import Prediction
from surgdino.tasks.request import PredictRequest
from surgdino.tasks.segmentation.targets import placements
from surgdino.tasks.task import Pictures, Task
from surgdino.tasks.training.batches import Batch, FrameFeatures, FrameImages
from surgdino.tasks.training.stage import Stage, Validate, resolve
from surgdino.tasks.training.tuning import head_groups, tuned_groups

_TUNED = {"epochs": 20, "batch_size": 16, "lr": 1e-4, "layer_decay": 0.8, "patience": 5, "weight_decay": 0.05}
_REGIONS = "the dataset has masks of classes and not of single objects: each connected region counts as one"


@dataclass(frozen=True)
class FoundObject:
    """An object of a picture.

    Attributes:
        name: its class.
        score: 0 to 1.
        box: left, top, width and height in the picture's pixels.
        mask: bool [H, W] of the picture's own size; None of a head that has learnt none.
    """

    name: str
    score: float
    box: tuple[float, float, float, float]
    mask: np.ndarray | None

    @classmethod
    def of(cls, row: Row, classes: Sequence[str]) -> FoundObject:
        """From a row of COCO's results."""
        left, top, width, height = row["bbox"]
        mask = from_runs(row["segmentation"]) if "segmentation" in row else None
        return cls(classes[row["category_id"] - 1], row["score"], (left, top, width, height), mask)


@dataclass(frozen=True, repr=False)
class FoundObjects(Prediction):
    """Attributes:
    objects: of each frame all detections, the surest first.
    shown: the score from which `surgdino predict` draws them.
    """

    objects: tuple[tuple[FoundObject, ...], ...]
    shown: float

    @property
    def sure(self) -> list[list[FoundObject]]:
        """Those of at least `shown`."""
        return [[each for each in objects if each.score >= self.shown] for objects in self.objects]


class InstancesTask(Task[InstancesSettings, tuple[int, list[Row]]]):
    """What is found is written picture by picture: `predict` gives (video, (frame number, rows of COCO's results))."""

    Settings, LABELS = InstancesSettings, OBJECTS
    DEFAULTS: ClassVar = {"epochs": 20, "batch_size": 16, "lr": 2e-3, "weight_decay": 0.01, "patience": 10}
    SINGLE_IMAGES = True
    scoring = InstancesScoring()

    def build_head(self, context: TaskContext) -> InstanceHead:
        """The head that the settings name; refuses queries over a backbone that does not learn."""
        settings, backbone, classes = self.settings, context.backbone, len(context.classes)
        name = settings.head or ("queries" if context.learns and backbone.packs else "centre")
        if name == "centre":
            return CentreHead(backbone, classes, settings.maps, settings.dropout)
        if not context.learns:
            what, fix = "task.head=queries trains the last blocks", "use backbone=last4 or full, or task.head=centre"
            raise SurgdinoError(what, expected="a backbone that learns", found="backbone=frozen", fix=fix)
        return QueryHead(backbone, classes, settings.queries, settings.query_blocks, settings.points)

    def stages(self, context: TaskContext, head: nn.Module) -> Iterator[Stage]:
        """One: the head, with as much of the backbone as shall learn."""
        assert isinstance(head, InstanceHead)
        train, classes = context.parts["train"], context.classes
        told = Told.of(train, classes, context.workers)
        head.masked.fill_(told.masked)
        head.prior.copy_(torch.from_numpy(told.prior))
        objects = CutObjects(train, classes, told.room, told.masked)
        validate = self._validation(context, head)
        grid = context.grid, context.grid

        def of_tokens(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
            return head.losses(model(batch["features"], grid), batch)

        def of_images(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
            return head.losses(model(context.normalize(batch["images"])), batch)

        if not context.learns:
            sides = (False, True) if self.settings.mirrored else (False,)
            targets = stored_objects(objects, context.image_size, sides, context.workers)
            tokens = [context.seen(View(1.0, mirrored)).features.patches(train) for mirrored in sides]
            data = FrameFeatures(Beside(tokens), targets)
            groups = head_groups(head)
            yield Stage("head", head, groups, data, of_tokens, validate, head.defaults, places=head.places)
            return
        images = FrameImages(train, context.cutter, read_targets=objects, workers=context.workers)
        groups = tuned_groups(head, context.backbone, context.train, self.DEFAULTS, _TUNED, head_factor=5)
        if isinstance(head, QueryHead):
            head.steps = resolve(context.train, self.DEFAULTS, _TUNED, overrides={}).total_steps(len(images))
        network = DetectionNetwork(context.backbone, head)
        yield Stage("head", network, groups, images, of_images, validate, _TUNED, places=head.places)

    def predict(
        self, context: TaskContext, head: nn.Module, frames: LabelledFrames
    ) -> Iterator[tuple[str, tuple[int, list[Row]]]]:
        """(video id, (frame number, rows without `image_id`)) of each frame."""
        video_of = frames.video_of
        for i, rows in self._detector(context, head).detections(frames, _tokens(context, frames)):
            yield frames.videos[video_of[i]], (int(frames.numbers[i]), rows)

    def evaluate(self, context: TaskContext, head: nn.Module, frames: LabelledFrames, folder: Path) -> TaskScores:
        """COCO's numbers; `predictions/` in `folder` gets the truth and what was found, as `score` reads them."""
        assert isinstance(head, InstanceHead)
        truth = truth_of(frames, context.classes)
        found = [
            {"image_id": i, **row}
            for i, (_, (_, rows)) in enumerate(self.predicted(context, head, frames), start=1)
            for row in rows
        ]
        truth.write(folder / "predictions" / "truth.json")
        write_results(folder / "predictions" / "results.json", found)
        owners = [frames.operations[frames.videos[place]] for place in frames.video_of]
        notes = [_REGIONS] if has_regions_alone(frames) else []
        named = [(frames.videos[place], int(n)) for place, n in zip(frames.video_of, frames.numbers, strict=True)]
        prior, shown = head.prior.cpu().numpy(), self.settings.shown
        return scored(truth, found, owners, prior=prior, notes=notes, shown=shown, named=named)

    def averaged(self, predictions: Sequence[tuple[int, list[Row]]]) -> tuple[int, list[Row]]:
        """Overlapping detections of a class are one."""
        return predictions[0][0], fused([rows for _, rows in predictions])[: self.settings.most]

    def graphs(self, context: TaskContext, head: nn.Module) -> tuple[Graph, ...]:
        """`scores`, `kinds`, `boxes` and, where masks were learnt, `masks` of the surest in each picture."""
        assert isinstance(head, InstanceHead)
        program = InstancesProgram(context.backbone, head, self.settings.most)
        with torch.no_grad():
            found = program(torch.zeros(1, *context.shape))
        k = found[0].shape[1]
        outputs = {
            "scores": f"[B, {k}], the surest first; 0 where there is no more",
            "kinds": f"int64 [B, {k}], classes",
            "boxes": f"[B, {k}, 4], centre x and y, width, height, in shares of the picture",
        }
        if len(found) > len(outputs):
            height, width = found[-1].shape[2:]
            outputs["masks"] = f"[B, {k}, {height}, {width}], logits over the whole picture"
        return (Graph("model", program, context.shape, outputs, classes={"kinds": context.classes}),)

    def said(
        self, context: TaskContext, head: nn.Module, frames: LabelledFrames, images: Tensor
    ) -> Mapping[str, np.ndarray]:
        """What the detector turns into boxes and masks of the pictures' own pixels."""
        answers = list(self._detector(context, head).answers(frames))
        found = {"scores": [each.scores for each in answers], "boxes": [each.boxes for each in answers]}
        if masks := [each.masks for each in answers if each.masks is not None]:
            found["masks"] = masks
        stacked = {name: torch.stack(each) for name, each in found.items()}
        there = (stacked["scores"] > 0).float()
        return {name: (each * there[(..., *[None] * (each.dim() - 2))]).numpy() for name, each in stacked.items()}

    def remarks(self) -> list[str]:
        """From the outputs to detections."""
        settings = self.settings
        inside = "The head `centre` counts a mask inside its box alone; with `queries` the box is that of the mask"
        return [f"The run keeps scores from {settings.keep:g} on and shows those from {settings.shown:g} on", inside]

    def pictures(self, frames: LabelledFrames, predictions: Path, classes: Sequence[str]) -> Pictures:
        """The picture at its own size, and over it what is there and what was detected."""
        truth = read_truth(predictions / "truth.json")
        found = read_found(predictions / "results.json", truth)
        sides = {"truth": truth.annotations, "prediction": [r for r in found if r["score"] >= self.settings.shown]}
        places, stored = placements(frames), super().pictures(frames, predictions, classes)

        def draw(row: int) -> dict[str, np.ndarray]:
            place = places[frames.video_of[row]]
            x0, y0, x1, y1 = place.box
            image = np.zeros((*place.source[::-1], 3), np.uint8)
            image[y0:y1, x0:x1] = cv2.resize(stored(row)["frame"], (x1 - x0, y1 - y0))
            own = {name: [each for each in side if each["image_id"] == row + 1] for name, side in sides.items()}
            return {"frame": image, **{name: drawn(image, rows, classes) for name, rows in own.items()}}

        return draw

    def write(self, request: PredictRequest) -> dict[str, Path]:
        """COCO's results with the images that they number, pictures with boxes, masks and names, and a table."""
        classes, folder, name = request.context.classes, request.folder, request.source.name
        called = picture_names(request.frames)
        images, table = list[Row](), list[list[object]]()

        def rows() -> Iterator[Row]:
            predicted = self.predicted(request.context, request.head, request.frames)
            for (video, (number, found)), frame in zip(predicted, request.pictures(), strict=True):
                place = called(video, number)
                height, width = frame.image.shape[:2]
                images.append({"id": len(images) + 1, "file_name": place, "width": width, "height": height})
                sure = [row for row in found if row["score"] >= self.settings.shown]
                write_picture(file_of(folder / "pictures", place, ".jpg"), frame.image, sure, classes)
                for row in sure:
                    kind, sides = classes[row["category_id"] - 1], [f"{side:.1f}" for side in row["bbox"]]
                    table.append([video, number, f"{frame.time:.3f}", kind, row["score"], *sides])
                yield from ({"image_id": len(images), **row} for row in found)

        header = ["video", "frame", "seconds", "class", "score", "left", "top", "width", "height"]
        return {
            "results": write_results(file_of(folder, name, "-results.json"), rows()),
            "images": Truth(images, classes, []).write(file_of(folder, name, "-images.json")),
            "table": write_csv(file_of(folder, name, ".csv"), header, table),
            "pictures": folder / "pictures",
        }

    def prediction(self, request: PredictRequest) -> FoundObjects:
        """All detections that are kept."""
        classes = request.context.classes
        found = self.predicted(request.context, request.head, request.frames)
        objects = tuple(tuple(FoundObject.of(row, classes) for row in rows) for _, (_, rows) in found)
        return FoundObjects.of(request, self.name, objects=objects, shown=self.settings.shown)

    def _validation(self, context: TaskContext, head: nn.Module) -> Validate | None:
        """COCO's average precision of boxes."""
        frames = context.parts.get("val")
        if frames is None:
            return None
        truth, tokens = truth_of(frames, context.classes), _tokens(context, frames)  # by all processes
        detector = self._detector(context.alone(), head)

        def validate(_: nn.Module) -> dict[str, float]:
            found = detector.detections(frames, tokens, masks=False)
            return average_precision(truth, [{"image_id": i + 1, **row} for i, rows in found for row in rows])

        return validate

    def _detector(self, context: TaskContext, head: nn.Module) -> Detector:
        assert isinstance(head, InstanceHead)
        return Detector(context, head, self.settings.keep, self.settings.most)

    def variant(self) -> str:
        """The head, where it is named."""
        return self.settings.head or ""


class InstancesProgram(nn.Module):
    """Pictures [B, 3, S, S] to scores, kinds, boxes and masks, as one program for any B."""

    def __init__(self, backbone: Backbone, head: InstanceHead, most: int) -> None:
        super().__init__()
        self.backbone, self.head, self.most, self.masked = Unpacked(backbone), head, most, bool(head.masked)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        found = self.head.found(self.head.of_images(self.backbone, images), self.most, self.masked)
        there = (found.scores > 0).float()  # places without a score come in any order
        boxes = found.boxes * there[..., None]
        return (
            found.scores,
            found.kinds,
            boxes,
            *([] if found.masks is None else [found.masks * there[..., None, None]]),
        )


def _tokens(context: TaskContext, frames: LabelledFrames) -> FeatureRows | None:
    """Of the last block's patches, where they are kept: of labelled frames, over a backbone that does not learn."""
    return None if context.learns or frames.labels is None else context.features.patches(frames)
