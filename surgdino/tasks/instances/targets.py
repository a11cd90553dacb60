"""What a detector should say of an image: each object's box, class and mask as they lie in the backbone's input.

Boxes are (centre x, centre y, width, height) in shares of the input. Pictures have different numbers of objects: in a
batch there is room for M, and the class of an empty place is -1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from surgdino.crops.workers import load
from surgdino.datasets.masks import VideoMasks
from surgdino.datasets.objects import Objects, VideoInstances, read_objects
from surgdino.errors import SurgdinoError
from surgdino.tasks.labelled_frames import LabelledFrames
from surgdino.tasks.segmentation.targets import Placement, placements, target_side
from surgdino.tasks.training.batches import Rows
from surgdino.tasks.training.cut import Cut

_VISIBLE = 0.2  # share of an object's box that a cut has to leave of it
_SMALLEST = 1e-3  # of a side, in shares of the input
_MOST = 300  # objects of a picture: more are a slip of the file
Found = dict[str, np.ndarray]


def objects_at(frames: LabelledFrames, i: int, placement: Placement, classes: Sequence[str]) -> Objects:
    """The objects of frame `i` in the picture's own pixels; raises as `read_objects`."""
    video = frames.videos[int(np.searchsorted(frames.starts, i, side="right")) - 1]
    values = frames.labels.values[video] if frames.labels else None
    if not isinstance(values, VideoInstances | VideoMasks):
        raise ValueError("these frames have no objects")
    return read_objects(values.frames[int(frames.numbers[i])], classes, placement.source)


def has_regions_alone(frames: LabelledFrames) -> bool:
    """Whether objects are made of the masks of classes, a region each."""
    return frames.labels is not None and any(isinstance(v, VideoMasks) for v in frames.labels.values.values())


@dataclass
class CutObjects:
    """Targets of one image, cut and flipped as the image was; for `FrameImages`, in its workers.

    Attributes:
        frames: labelled with objects, or with masks.
        classes: in the order of their ids.
        room: M.
        masks: whether to make masks; they have no pixels otherwise.
    """

    frames: LabelledFrames
    classes: tuple[str, ...]
    room: int
    masks: bool = True

    def __post_init__(self) -> None:
        self._placements, self._video_of = placements(self.frames), self.frames.video_of

    def __call__(self, i: int, cut: Cut) -> Found:
        """`boxes` float32 [M, 4], `kinds` int64 [M], `crowd` and `masked` bool [M], `masks` uint8 [M, side, side]: 255
        where a pixel is all covered; empty where the object is not `masked`."""
        placement = self._placements[self._video_of[i]]
        found = objects_at(self.frames, i, placement, self.classes)
        side = target_side(cut.size) if self.masks else 0
        rows = self._empty(side)
        place = 0
        for box, kind, mask, crowd in zip(*_in_cut(found, placement, cut), strict=True):
            visible = np.prod(np.clip(box[1], 0, 1) - np.clip(box[0], 0, 1)) / np.prod(box[1] - box[0])
            low, high = np.clip(box, 0, 1)
            if visible < _VISIBLE or (high - low < _SMALLEST).any() or place == self.room:
                continue
            rows["boxes"][place] = [*(low + high) / 2, *(high - low)]
            rows["kinds"][place], rows["crowd"][place], rows["masked"][place] = kind, crowd, mask is not None
            if mask is not None and side:
                plane = placement.to_frame(mask[None], placement.stored)[0]
                width, height = cut.box[2] - cut.box[0], cut.box[3] - cut.box[1]
                how = cv2.INTER_AREA if min(width, height) >= side else cv2.INTER_LINEAR
                rows["masks"][place] = replace(cut, size=side).apply(plane, how)
            place += 1
        return rows

    def whole(self, i: int, size: int, mirrored: bool = False) -> Found:
        """The same of the whole stored frame, for an input of that side."""
        width, height = self._placements[self._video_of[i]].stored
        return self(i, Cut((0, 0, width, height), size, flip_horizontal=mirrored))

    def _empty(self, side: int) -> Found:
        room = self.room
        masks = np.zeros((room, side, side), np.uint8)
        flags = {name: np.zeros(room, bool) for name in ("crowd", "masked")}
        return {"boxes": np.zeros((room, 4), np.float32), "kinds": np.full(room, -1, np.int64), "masks": masks, **flags}


def _in_cut(found: Objects, placement: Placement, cut: Cut) -> tuple[np.ndarray, ...]:
    """Corners float64 [n, 2, 2] of the boxes in shares of the cut, with the objects' classes, masks and crowds."""
    x0, y0, x1, y1 = placement.box
    corners = np.stack([found.boxes[:, :2], found.boxes[:, :2] + found.boxes[:, 2:]], 1)
    corners = (corners - (x0, y0)) * np.divide(placement.stored, (x1 - x0, y1 - y0))
    low, high = np.array(cut.box[:2]), np.array(cut.box[2:])
    corners = (corners - low) / (high - low)
    for axis, flips in enumerate((cut.flip_horizontal, cut.flip_vertical)):
        if flips:
            corners[:, :, axis] = 1 - corners[:, ::-1, axis]
    return corners, found.classes, found.masks, found.crowd  # type: ignore[return-value]


@dataclass(frozen=True)
class Told:
    """What is to be learnt, in short.

    Attributes:
        room: the most objects that a frame has, at least 1.
        masked: whether any has a mask.
        prior: float32 [C, 5], each class's mean box (left, top, width, height) in shares of the picture, and the share
            of frames that show it: what one would say without looking.
    """

    room: int
    masked: bool
    prior: np.ndarray

    @classmethod
    def of(cls, frames: LabelledFrames, classes: Sequence[str], workers: int = 0) -> Told:
        """Read all objects once, in worker processes.

        Raises:
            SurgdinoError: as `objects_at`, and for more objects than a picture can have.
        """
        sums, shown = np.zeros((len(classes), 5)), np.zeros(len(classes))
        room, masked = 1, False
        read = _Boxes(frames, tuple(classes))
        found = load(read, range(len(frames)), min(workers, len(frames)), result_bytes=0)
        for i, (*arrays, drawn) in enumerate(found):
            boxes, kinds = map(np.asarray, arrays)  # they come as tensors
            if len(kinds) > _MOST:
                video = frames.videos[frames.video_of[i]]
                what, place = "more objects than a picture can have", f"{video}, frame {int(frames.numbers[i])}"
                raise SurgdinoError(what, place=place, expected=f"at most {_MOST}", found=len(kinds))
            np.add.at(sums, kinds, np.concatenate([boxes, np.ones((len(boxes), 1))], 1))
            shown[np.unique(kinds)] += 1
            room, masked = max(room, len(kinds)), masked or drawn
        mean = sums[:, :4] / np.maximum(sums[:, 4:], 1)
        return cls(room, masked, np.concatenate([mean, shown[:, None] / max(len(frames), 1)], 1).astype(np.float32))


@dataclass
class _Boxes:
    """Runs in the workers: boxes [n, 4] in shares of the picture, classes [n], and whether there is a mask."""

    frames: LabelledFrames
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        self._placements, self._video_of = placements(self.frames), self.frames.video_of

    def __call__(self, i: int) -> tuple[np.ndarray, np.ndarray, bool]:
        placement = self._placements[self._video_of[i]]
        found = objects_at(self.frames, i, placement, self.classes)
        one = ~found.crowd
        boxes = found.boxes[one] / (placement.source * 2)
        return boxes, found.classes[one], any(mask is not None for mask in found.masks)


class Beside:
    """Rows of several sources of as many rows each, one source after the other."""

    def __init__(self, sources: Sequence[Rows]) -> None:
        self.sources, self.each = sources, len(sources[0])

    def __len__(self) -> int:
        return self.each * len(self.sources)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        parts = [(rows // self.each == place, source) for place, source in enumerate(self.sources)]
        read = [(mine, source[rows[mine] % self.each]) for mine, source in parts if mine.any()]
        found = np.empty((len(rows), *read[0][1].shape[1:]), read[0][1].dtype)
        for mine, values in read:
            found[mine] = values
        return found


def stored_objects(cut: CutObjects, size: int, mirrored: Sequence[bool], workers: int = 0) -> dict[str, np.ndarray]:
    """What `CutObjects` gives of all whole frames, and of the same mirrored, in memory: 3 kB a mask for an input of 224
    pixels.

    Args:
        size: side of the backbone's input.
        mirrored: of each repetition of the frames.
    """
    count, found = len(cut.frames), list[Found]()
    for each in mirrored:
        found += load(_Whole(cut, size, each), range(count), min(workers, count), result_bytes=0)
    return {name: np.stack([np.asarray(row[name]) for row in found]) for name in found[0]}


@dataclass
class _Whole:
    """Runs in the workers."""

    cut: CutObjects
    size: int
    mirrored: bool

    def __call__(self, i: int) -> Found:
        return self.cut.whole(i, self.size, self.mirrored)
