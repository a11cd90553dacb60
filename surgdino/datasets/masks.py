"""Masks of one video or image: where they lie, which classes they tell of, and how a mask file is read.

Three things are told apart for every class of a picture: its mask is there, it is known to be absent, or nothing is
known of it. The last is what DSAD's single-organ folders have for ten of eleven organs; that isn't the same as absent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from surgdino.datasets.depth import DepthMap
from surgdino.datasets.drawings import Drawing
from surgdino.datasets.files import image_size
from surgdino.datasets.mask_files import THRESHOLD, Layer, read_layers, read_mask
from surgdino.errors import SurgdinoError

__all__ = ["THRESHOLD", "FrameMasks", "Mask", "VideoMasks", "read_mask", "read_masks", "read_truth"]

# A file of its own, a class of a file with several, several of those together, outlines from a labelling tool; or where
# depth is known.
Mask = Path | Layer | tuple[Layer, ...] | Drawing | DepthMap


@dataclass(frozen=True)
class FrameMasks:
    """The masks of one picture.

    Attributes:
        image: the picture, or the video that it is a frame of.
        files: class -> its mask, or None where the class is known to be absent. A class that's missing is unlabelled.
        size: (width, height) in pixels where `image` is a video, whose frame this is; otherwise the file says it.
    """

    image: Path
    files: Mapping[str, Mask | None]
    size: tuple[int, int] | None = None


class VideoMasks(Mapping[int, FrameMasks]):
    """Frame number -> masks, read like a dictionary.

    Attributes:
        numbers: int64 [n], ascending frame numbers.
        labelled: bool [n, classes], whether anything is known of a class.
        array: uint8 [n, classes], whether a class has a mask.
    """

    def __init__(self, frames: Mapping[int, FrameMasks], classes: Sequence[str]) -> None:
        self.frames = dict(sorted(frames.items()))
        self.numbers = np.array(list(self.frames), dtype=np.int64)
        told = [[name in frame.files for name in classes] for frame in self.frames.values()]
        given = [[frame.files.get(name) is not None for name in classes] for frame in self.frames.values()]
        self.labelled = np.array(told, dtype=bool).reshape(len(told), len(classes))
        self.array = np.array(given, dtype=np.uint8).reshape(len(given), len(classes))

    def __getitem__(self, number: int) -> FrameMasks:
        return self.frames[number]

    def __iter__(self) -> Iterator[int]:
        return iter(self.frames)

    def __len__(self) -> int:
        return len(self.frames)


@dataclass(frozen=True)
class Shown:
    """What the masks of one picture show, by class.

    Attributes:
        labelled: bool [classes], whether anything is known of a class.
        pixels: int64 [classes], that a class covers.
        unlabelled: pixels of which nothing is known.
        size: pixels of the picture.
    """

    labelled: np.ndarray
    pixels: np.ndarray
    unlabelled: int
    size: int


def count_pixels(frame: FrameMasks, classes: Sequence[str]) -> Shown:
    """What the masks of a picture show; raises as `read_masks`."""
    masks, labelled, known = read_truth(frame, classes)
    return Shown(labelled, masks.sum((1, 2), dtype=np.int64), int(known.size - known.sum()), masks[0].size)


def read_masks(frame: FrameMasks, classes: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """As `read_truth`, without the third: for learning, to which an unlabelled pixel shows nothing."""
    return read_truth(frame, classes)[:2]


def read_truth(frame: FrameMasks, classes: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All masks of a picture.

    Args:
        frame: the picture's masks.
        classes: in the order of the channels.

    Returns:
        bool [classes, H, W] of the picture's own size, and bool [classes]: whether the class is labelled at all. Where
        it's not, its channel is empty and means nothing. And bool [H, W]: pixels of which anything is known.

    Raises:
        SurgdinoError: a mask can't be read, or has another size than its picture.
    """
    width, height = frame.size or image_size(frame.image)
    masks = np.zeros((len(classes), height, width), dtype=bool)
    known = np.ones((height, width), dtype=bool)
    layers: dict[Path, tuple[dict[str, np.ndarray], np.ndarray]] = {}
    for channel, name in enumerate(classes):
        source = frame.files.get(name)
        if source is None:
            continue
        if isinstance(source, Drawing):
            masks[channel] = source.draw(width, height)
            continue
        if isinstance(source, DepthMap):
            masks[channel] = np.isfinite(source.read(width, height))
            continue
        for part in source if isinstance(source, tuple) else (source,):
            if isinstance(part, Layer):
                path = part.path
                if path not in layers:
                    layers[path] = read_layers(path, part.legend)
                mask = layers[path][0][part.name]
            else:
                path, mask = part, read_mask(part)
            if mask.shape != (height, width):
                raise SurgdinoError(
                    "the mask has another size than its picture",
                    file=path,
                    expected=f"{width}x{height}",
                    found=f"{mask.shape[1]}x{mask.shape[0]}",
                    fix="make the mask again at the picture's size",
                )
            masks[channel] |= mask
    for _, unlabelled in layers.values():
        known &= ~unlabelled
    return masks, np.array([name in frame.files for name in classes], dtype=bool), known
