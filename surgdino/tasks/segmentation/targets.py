"""What the network should say of an image: masks as they lie in the backbone's input, at a quarter of its side.

Heads answer at that resolution or below. A target is the covered share of its pixel, so that edges keep most of their
position, and some thousand images fit into memory.

The frame store cuts an image to its content and shrinks it; masks are of the whole image. Every resize on the way maps
pixel centres as OpenCV's and torch's (`align_corners=False`) do, so images and masks stay aligned.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import cv2
import numpy as np

from surgdino.crops.workers import load
from surgdino.datasets.masks import read_masks
from surgdino.errors import SurgdinoError
from surgdino.frames.content import Content
from surgdino.frames.shard import Shard
from surgdino.tasks.labelled_frames import LabelledFrames
from surgdino.tasks.training.cut import Cut, Cutter

STRIDE = 4
_LOOKED_AT, _OVERLAP = 64, 0.01
# A window's side varies by this factor in training, since an organ's size on the screen does.
_ZOOM = 1.25


@dataclass(frozen=True)
class Placement:
    """Where a stored frame lies in its image.

    Attributes:
        source: (width, height) of the image.
        box: (x0, y0, x1, y1) of the stored part in the image's pixels, half-open.
        stored: (width, height) of the stored frame.
    """

    source: tuple[int, int]
    box: tuple[int, int, int, int]
    stored: tuple[int, int]

    @classmethod
    def of(cls, shard: Shard) -> Placement:
        """That of all frames of a shard."""
        header, content = shard.header, shard.header["content"]
        x0, y0, x1, y1 = content["source_box"]
        width, height = content["source_size"]
        return cls((width, height), (x0, y0, x1, y1), (header["width"], header["height"]))

    def to_frame(self, masks: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Masks of the image as they lie in the stored frame.

        Args:
            masks: bool [C, H, W], of the image's own size.
            size: (width, height) of the result; the stored frame's, or that of the square which the backbone is given.

        Returns:
            uint8 [C, height, width]: how much of each pixel the class covers, 255 being all of it.
        """
        x0, y0, x1, y1 = self.box
        planes = masks[:, y0:y1, x0:x1].view(np.uint8) * 255
        height, width = planes.shape[1:]
        # Area averaging is the covered share, but only where both sides shrink; elsewhere it repeats pixels.
        how = cv2.INTER_AREA if width >= size[0] and height >= size[1] else cv2.INTER_LINEAR
        return np.stack([cv2.resize(plane, size, interpolation=how) for plane in planes])  # a copy at its own size

    def enlarged(self, planes: np.ndarray) -> np.ndarray:
        """float32 [C, y1 - y0, x1 - x0] of the stored part, from planes [C, h, w] over it at any resolution."""
        x0, y0, x1, y1 = self.box
        return np.stack([cv2.resize(each, (x1 - x0, y1 - y0), interpolation=cv2.INTER_LINEAR) for each in planes])

    def to_picture(self, inside: np.ndarray) -> np.ndarray:
        """Masks of the image's own size, bool [C, H, W]; background where the stored frame does not reach.

        Args:
            inside: bool [C, y1 - y0, x1 - x0], of the stored part.
        """
        x0, y0, x1, y1 = self.box
        masks = np.zeros((len(inside), self.source[1], self.source[0]), dtype=bool)
        masks[:, y0:y1, x0:x1] = inside
        return masks


def placements(frames: LabelledFrames) -> list[Placement]:
    """Where the frames of each video lie in their images, in the order of `frames.videos`."""
    shards = {video.id: video.shard for video in frames.store.videos}
    return [Placement.of(shards[video]) for video in frames.videos]


def target_side(image_size: int) -> int:
    """Side of the targets of an input of that side."""
    return max(image_size // STRIDE, 1)


def shown_classes(frames: LabelledFrames, classes: Sequence[str]) -> np.ndarray:
    """bool [n, C]: of which classes an image has a mask. No file is read, so an empty mask counts too."""
    shown = [[frames.masks(i).files.get(name) is not None for name in classes] for i in range(len(frames))]
    return np.array(shown, dtype=bool).reshape(-1, len(classes))


def refuse_overlap(frames: LabelledFrames, classes: Sequence[str]) -> None:
    """Refuses masks that cannot be told apart by a softmax, after a look at some of the pictures.

    Raises:
        SurgdinoError: more than 1 % of the masked pixels show several classes, or no picture has all classes labelled.
    """
    place, what = "task.classes", "a pixel cannot have one class here"
    labelled = [i for i in range(len(frames)) if all(name in frames.masks(i).files for name in classes)]
    if not labelled:
        found = "no training picture in which every class is labelled"
        raise SurgdinoError(what, place=place, found=found, fix="use task.classes=separate")
    shown = several = 0
    for k in np.unique(np.linspace(0, len(labelled) - 1, _LOOKED_AT).astype(int)).tolist():
        depth = read_masks(frames.masks(labelled[k]), classes)[0].sum(0)
        shown, several = shown + int((depth > 0).sum()), several + int((depth > 1).sum())
    if several > _OVERLAP * shown:
        found = f"{100 * several / shown:.1f} % of the masked pixels show several classes"
        raise SurgdinoError(what, place=place, found=found, fix="use task.classes=separate")


@dataclass
class CutTargets:
    """Targets of one image, cut and flipped as the image was; for `FrameImages`, in its workers.

    Attributes:
        frames: labelled with masks.
        classes: in the order of the channels.
    """

    frames: LabelledFrames
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        self._placements, self._video_of = placements(self.frames), self.frames.video_of

    def __call__(self, i: int, cut: Cut) -> dict[str, np.ndarray]:
        """`masks` uint8 [C, side, side] and `labelled` bool [C]."""
        masks, labelled = read_masks(self.frames.masks(i), self.classes)
        placement = self._placements[self._video_of[i]]
        planes = placement.to_frame(masks, placement.stored)
        small = replace(cut, size=target_side(cut.size))
        width, height = cut.box[2] - cut.box[0], cut.box[3] - cut.box[1]
        how = cv2.INTER_AREA if min(width, height) >= small.size else cv2.INTER_LINEAR
        return {"masks": np.stack([small.apply(plane, how) for plane in planes]), "labelled": labelled}

    def whole(self, i: int, side: int) -> np.ndarray:
        """uint8 [C, side, side] of the whole stored frame."""
        masks, _ = read_masks(self.frames.masks(i), self.classes)
        return self._placements[self._video_of[i]].to_frame(masks, (side, side))


class MaskTargets:
    """The targets of n images in memory: of classes with a mask alone, 3 kB each for an input of 224 pixels.

    Attributes:
        labelled: bool [n, C].
    """

    def __init__(self, frames: LabelledFrames, classes: Sequence[str], side: int, workers: int = 0) -> None:
        """Read all masks once, in worker processes.

        Args:
            frames: labelled with masks.
            classes: in the order of the channels.
            side: of the targets, in pixels.
        """
        known = [[name in frames.masks(i).files for name in classes] for i in range(len(frames))]
        self.labelled = np.array(known, dtype=bool).reshape(-1, len(classes))
        self._shown = shown_classes(frames, classes)
        self._pair = np.cumsum(self._shown).reshape(self._shown.shape) - 1
        self._planes = np.zeros((int(self._shown.sum()), side, side), np.uint8)
        read = partial(CutTargets(frames, tuple(classes)).whole, side=side)
        for i, planes in enumerate(load(read, range(len(frames)), min(workers, len(frames)), result_bytes=0)):
            self._planes[self._pair[i][self._shown[i]]] = planes[self._shown[i]]

    def __len__(self) -> int:
        return len(self.labelled)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """uint8 [m, C, side, side], 255 where a pixel is all covered; 0 and meaningless where unlabelled."""
        shown = self._shown[rows]
        found = np.zeros((*shown.shape, *self._planes.shape[1:]), np.uint8)
        found[shown] = self._planes[self._pair[rows][shown]]
        return found


@dataclass
class WindowCutter(Cutter):
    """Cuts square windows of about `size` pixels anywhere in the stored frame; a smaller frame's shorter side at most.

    A window has the size that the backbone is given: nothing is shrunk, and fine structures keep their pixels.

    Attributes: see `Cutter`; `scale` and `ratio` are not used.
    """

    def draw(self, height: int, width: int, content: Content, rng: random.Random) -> Cut:
        """Where the next window lies, uniformly over the frame."""
        side = min(round(self.size * math.exp(rng.uniform(-1, 1) * math.log(_ZOOM))), height, width)
        left, top = rng.randint(0, width - side), rng.randint(0, height - side)
        horizontal, vertical = (rng.random() < chance for chance in self._flips)
        return Cut((left, top, left + side, top + side), self.size, horizontal, vertical)
