"""Single objects of a picture, such as each instrument: box, class and mask; what detectors learn and are tested on.

A frame that is labelled and has no object is one that somebody has looked at and found empty, as in COCO. Where a
dataset has masks of classes alone, each connected region of a class stands for one object.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from surgdino.datasets.class_names import class_finder
from surgdino.datasets.drawings import Drawing, Shape
from surgdino.datasets.manifest import FrameLabels
from surgdino.datasets.masks import FrameMasks, read_truth
from surgdino.errors import SurgdinoError

OBJECTS = "objects"  # the kind of these labels
Box = tuple[float, float, float, float]  # left, top, width, height
_SPECK = 1e-4  # share of the picture: a smaller region of a mask is no object


@dataclass(frozen=True)
class Instance:
    """One object as a file has it.

    Attributes:
        label: its class.
        shapes: its mask is what any of them covers; empty where it has a box alone.
        box: in pixels, or in shares of the picture; None where the mask says it.
        crowd: many objects that nobody took apart, as COCO's `iscrowd`: neither to be found nor wrongly found.
    """

    label: str
    shapes: tuple[Shape, ...] = ()
    box: Box | None = None
    crowd: bool = False


@dataclass(frozen=True)
class FrameInstances:
    """All objects of one picture.

    Attributes:
        path, place: the file that tells of them and where in it, for messages.
        objects: none, where the picture shows none.
        size: (width, height) of the picture that they were drawn on; (0, 0) where the file does not say it.
        relative: whether boxes are shares of the picture.
    """

    path: Path
    place: str
    objects: tuple[Instance, ...]
    size: tuple[int, int] = (0, 0)
    relative: bool = False


class VideoInstances(FrameLabels):
    """The objects of a video's frames; read as frame labels, of which classes a frame shows any.

    Attributes:
        frames: frame number -> its objects.
    """

    def __init__(self, frames: Mapping[int, FrameInstances], classes: Sequence[str]) -> None:
        self.frames = dict(sorted(frames.items()))
        shown = [[any(o.label == name for o in frame.objects) for name in classes] for frame in self.frames.values()]
        array = np.array(shown, np.uint8).reshape(len(shown), len(classes))
        super().__init__(np.array(list(self.frames), np.int64), array)


@dataclass(frozen=True)
class Objects:
    """The n objects of a picture, in its own pixels.

    Attributes:
        boxes: float64 [n, 4]: left, top, width, height, inside the picture.
        classes: int64 [n].
        masks: n masks bool [H, W], None for objects with a box alone.
        crowd: bool [n].
    """

    boxes: np.ndarray
    classes: np.ndarray
    masks: tuple[np.ndarray | None, ...]
    crowd: np.ndarray


def read_objects(frame: FrameInstances | FrameMasks, classes: Sequence[str], size: tuple[int, int]) -> Objects:
    """The objects of a picture; those without any extent are left out.

    Args:
        classes: in the order of their ids.
        size: (width, height) of the picture.

    Raises:
        SurgdinoError: drawn on a picture of another size, a mask that cannot be drawn, or masks that say nothing of
            some classes.
    """
    if isinstance(frame, FrameMasks):
        return _regions(frame, classes)
    width, height = size
    if frame.size not in ((0, 0), size):
        what, found = "drawn on a picture of another size", "{}x{}".format(*frame.size)
        fix, expected = "export it again, with the picture that is here", f"{width}x{height}, as the picture is"
        raise SurgdinoError(what, file=frame.path, place=frame.place, expected=expected, found=found, fix=fix)
    find, rows = class_finder(classes), []
    for each in frame.objects:
        kind, mask = find(each.label), None
        if each.shapes:
            mask = Drawing(frame.path, f"{frame.place}, {each.label}", (0, 0), each.shapes).draw(width, height)
        box = np.array(box_of(mask) if each.box is None and mask is not None else each.box or (0, 0, 0, 0), float)
        box = box * (width, height, width, height) if frame.relative else box
        low, high = np.clip([box[:2], box[:2] + box[2:]], 0, (width, height))
        if kind is not None and (high > low).all():
            rows.append(([*low, *(high - low)], kind, mask, each.crowd))
    return _objects(rows)


def box_of(mask: np.ndarray) -> Box:
    """The smallest box around bool [H, W]; of width and height 0 where it is empty."""
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(xs):
        return (0.0, 0.0, 0.0, 0.0)
    return float(xs[0]), float(ys[0]), float(xs[-1] - xs[0] + 1), float(ys[-1] - ys[0] + 1)


def _regions(frame: FrameMasks, classes: Sequence[str]) -> Objects:
    masks, labelled, _ = read_truth(frame, classes)
    if not labelled.all():
        what, expected = "masks that say nothing of some classes", "every class, labelled or known to be absent"
        found = ", ".join(name for name, known in zip(classes, labelled, strict=True) if not known)[:80]
        raise SurgdinoError(what, file=frame.image, expected=expected, found=f"nothing of {found}")
    rows = []
    for kind, plane in enumerate(masks):
        count, regions = cv2.connectedComponents(plane.astype(np.uint8), connectivity=8)
        for region in range(1, count):
            if (mask := regions == region).sum() > _SPECK * mask.size:
                rows.append((list(box_of(mask)), kind, mask, False))
    return _objects(rows)


def _objects(rows: list[tuple[list[float], int, np.ndarray | None, bool]]) -> Objects:
    boxes, classes, masks, crowd = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Objects(
        np.array(boxes, np.float64).reshape(-1, 4), np.array(classes, np.int64), tuple(masks), np.array(crowd, bool)
    )
