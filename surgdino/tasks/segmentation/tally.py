"""Segmentation: Dice, IoU, HD95 and NSD, image by image, so that no more than one picture's masks is ever held."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from surgdino.errors import SurgdinoError
from surgdino.metrics.arrays import nanmean
from surgdino.metrics.confusion import NONE, of_masks
from surgdino.metrics.intervals import operations_of
from surgdino.metrics.scores import ClassTable, Confusion, FrameScores, TaskScores, find_row, score_rows
from surgdino.metrics.segmentation import NSD, PROTOCOL, ImageScores, class_means, class_table, image_scores, stacked

HEADLINE = ("dice", PROTOCOL)
PROTOCOLS = (PROTOCOL, *NSD.values())


class SegmentationTally:
    """Scores of pictures, added one by one in any order; a few numbers a picture are kept.

    Args:
        classes: names in the order of the channels.
        operations: video id -> operation id; None takes each video for an operation.
        hd95: compute HD95 and NSD too, which cost more than the rest together and import MONAI.
    """

    def __init__(
        self, classes: Sequence[str], operations: Mapping[str, str] | None = None, *, hd95: bool = True
    ) -> None:
        self.classes, self.operations = tuple(classes), operations
        self.hd95 = hd95
        self.images: dict[tuple[str, int], ImageScores] = {}
        self._pixels = np.zeros((len(self.classes) + 1,) * 2, np.int64)

    def add(
        self,
        video: str,
        frame: int,
        truth: np.ndarray,
        prediction: np.ndarray,
        labelled: np.ndarray | None = None,
        *,
        valid: np.ndarray | None = None,
    ) -> None:
        """Score one picture.

        Args:
            truth, prediction: bool [C, H, W].
            labelled: bool [C]; other classes count for nothing here. None: all are.
            valid: bool [H, W]; other pixels count for neither side. None: all pixels.

        Raises:
            SurgdinoError: the picture was added before, or masks that do not fit.
        """
        if (video, frame) in self.images:
            raise SurgdinoError("a picture was scored twice", place=f"{video}, frame {frame}", expected="it once")
        try:
            scores = image_scores(truth, prediction, labelled=labelled, valid=valid, hd95=self.hd95)
        except SurgdinoError as error:  # who compares two arrays does not know of which picture they are
            raise error.but(place=f"{video}, frame {frame}") from error
        self.images[video, frame] = scores
        if scores.labelled.all():  # elsewhere a pixel of none of the labelled classes may be of another
            self._pixels += of_masks(np.asarray(truth, bool), np.asarray(prediction, bool), valid)

    def scores(self, protocols: Sequence[str] = PROTOCOLS) -> TaskScores:
        """The numbers of all pictures so far, of these protocols.

        Raises:
            SurgdinoError: no picture was added, or a video belongs to no operation.
        """
        keys = sorted(self.images)
        images = [self.images[key] for key in keys]
        owners = operations_of([video for video, _ in keys], self.operations)
        values = stacked(images, self.classes)
        measures = {name: value for name, value in values.items() if self.hd95 or name != "hd95"}
        tables = {PROTOCOL: score_rows(lambda rows: class_means(measures, rows), owners, PROTOCOL, {"hd95": "pixels"})}
        names = [*self.classes, NONE]
        shown = {
            name: {key: number for key, number in row.items() if self.hd95 or not key.startswith("hd95")}
            for name, row in class_table(images, self.classes).items()
        }
        classes = {PROTOCOL: ClassTable("class", PROTOCOL, shown)}
        for place, name in enumerate(NSD.values() if self.hd95 else ()):
            near = np.stack([image.nsd[place] for image in images])
            tables[name] = score_rows(partial(class_means, {"nsd": near}), owners, name)
            means = zip(self.classes, nanmean(near, 0).tolist(), strict=True)
            classes[name] = ClassTable("class", name, {each: {"nsd": value} for each, value in means})
        table = [row for name in tables if name in protocols for row in tables[name]]
        return TaskScores(
            task="segmentation",
            table=table,
            classes=[classes[name] for name in classes if name in protocols],
            operations=len(set(owners)),
            notes=[],
            headline_row=find_row(table, *HEADLINE),
            confusions=[Confusion("class", names, names, self._pixels, "pixels")] if self._pixels.any() else [],
            frames=FrameScores("mean Dice", _frames(self.images)),
        )


def _frames(images: Mapping[tuple[str, int], ImageScores]) -> list[tuple[str, int, float, str, str]]:
    """Of each picture the mean over its classes; those with nothing to find and nothing found are left out."""
    values = {key: float(nanmean(image.dice)) for key, image in sorted(images.items())}
    return [(*key, value, "", "") for key, value in values.items() if not np.isnan(value)]
