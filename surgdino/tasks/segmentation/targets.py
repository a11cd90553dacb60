"""What the network shall say of a picture: its masks as they lie in the backbone's input, at a quarter of its side.

Heads answer at that resolution or below. A target is the covered share of its pixel, so little of an edge's place is
lost, and a set of some thousand pictures fits into memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from surgdino.datasets.masks import read_masks
from surgdino.tasks.labelled_frames import LabelledFrames
from surgdino.tasks.segmentation.placement import Placement
from surgdino.tasks.training.batches import load
from surgdino.tasks.training.cut import Cut

STRIDE = 4


def target_side(image_size: int) -> int:
    """Side of the targets of an input of that side."""
    return max(image_size // STRIDE, 1)


def placements(frames: LabelledFrames) -> list[Placement]:
    """Where the frames of each video lie in their pictures, in the order of `frames.videos`."""
    shards = {video.id: video.shard for video in frames.store.videos}
    return [Placement.of(shards[video]) for video in frames.videos]


def labelled_classes(frames: LabelledFrames, classes: Sequence[str]) -> np.ndarray:
    """bool [n, C]: of which classes anything is known in a picture."""
    told = [[name in frames.masks(i).files for name in classes] for i in range(len(frames))]
    return np.array(told, dtype=bool).reshape(-1, len(classes))


def shown_classes(frames: LabelledFrames, classes: Sequence[str]) -> np.ndarray:
    """bool [n, C]: of which classes a picture has a mask. Nothing is read, so an empty mask counts too."""
    shown = [[frames.masks(i).files.get(name) is not None for name in classes] for i in range(len(frames))]
    return np.array(shown, dtype=bool).reshape(-1, len(classes))


class MaskTargets:
    """The targets of n pictures in memory: of labelled classes alone, 3 kB each for an input of 224 pixels.

    Attributes:
        labelled: bool [n, C].
    """

    def __init__(self, frames: LabelledFrames, classes: Sequence[str], side: int, workers: int = 0) -> None:
        """Read all masks once.

        Args:
            frames: labelled with masks.
            classes: in the order of the channels.
            side: of the targets, in pixels.
            workers: processes that read.

        Raises:
            SurgdinoError: a mask can't be read, or has another size than its picture.
        """
        self.labelled = labelled_classes(frames, classes)
        self._pair = np.cumsum(self.labelled).reshape(self.labelled.shape) - 1
        self._planes = np.zeros((int(self.labelled.sum()), side, side), np.uint8)
        read = _ReadTargets(frames, tuple(classes), side)
        for i, planes in enumerate(load(read, range(len(frames)), workers)):
            self._planes[self._pair[i][self.labelled[i]]] = planes[self.labelled[i]]

    def __len__(self) -> int:
        return len(self.labelled)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """uint8 [m, C, side, side], 255 where a pixel is all covered; 0 and meaningless where unlabelled."""
        labelled = self.labelled[rows]
        found = np.zeros((*labelled.shape, *self._planes.shape[1:]), np.uint8)
        found[labelled] = self._planes[self._pair[rows][labelled]]
        return found


@dataclass
class _ReadTargets:
    """Place among the frames in, uint8 [C, side, side] of the whole stored frame out; runs in the workers."""

    frames: LabelledFrames
    classes: tuple[str, ...]
    side: int

    def __post_init__(self) -> None:
        self._placements = placements(self.frames)
        self._video_of = self.frames.video_of

    def __call__(self, i: int) -> np.ndarray:
        masks, _ = read_masks(self.frames.masks(i), self.classes)
        return self._placements[self._video_of[i]].to_frame(masks, (self.side, self.side))


@dataclass
class CutTargets:
    """Targets of one picture, cut and flipped as the picture was; for `ImageSource`, in its workers.

    Attributes:
        frames: labelled with masks.
        classes: in the order of the channels.
    """

    frames: LabelledFrames
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        self._placements = placements(self.frames)
        self._video_of = self.frames.video_of

    def __call__(self, i: int, cut: Cut) -> dict[str, np.ndarray]:
        """`masks` uint8 [C, side, side] and `labelled` bool [C]."""
        masks, labelled = read_masks(self.frames.masks(i), self.classes)
        placement = self._placements[self._video_of[i]]
        planes = placement.to_frame(masks, placement.stored)
        small = replace(cut, size=target_side(cut.size))
        width, height = cut.box[2] - cut.box[0], cut.box[3] - cut.box[1]
        how = cv2.INTER_AREA if min(width, height) >= small.size else cv2.INTER_LINEAR
        return {"masks": np.stack([small.apply(plane, how) for plane in planes]), "labelled": labelled}
