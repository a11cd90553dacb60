"""Masks of one video or image: where they lie, which classes they tell of, and how a mask file is read.

Three things are told apart for every class of a picture: its mask is there, it is known to be absent, or nothing is
known of it. The last is what DSAD's single-organ folders have for ten of eleven organs; that isn't the same as absent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from surgdino.datasets.files import image_size
from surgdino.errors import SurgdinoError

# Masks kept as JPEG are blurred at their edges: 0..5 and 250..255 where 0 and 255 were meant.
THRESHOLD = 127
_DARK = 15  # grey values that JPEG makes of black; as many below white


@dataclass(frozen=True)
class FrameMasks:
    """The masks of one picture.

    Attributes:
        image: the picture.
        files: class -> its mask, or None where the class is known to be absent. A class that's missing is unlabelled.
    """

    image: Path
    files: Mapping[str, Path | None]


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
        self.labelled = np.array(told, dtype=bool).reshape(-1, len(classes))
        self.array = np.array(given, dtype=np.uint8).reshape(-1, len(classes))

    def __getitem__(self, number: int) -> FrameMasks:
        return self.frames[number]

    def __iter__(self) -> Iterator[int]:
        return iter(self.frames)

    def __len__(self) -> int:
        return len(self.frames)


def read_mask(path: Path) -> np.ndarray:
    """The mask of one class as bool [H, W], turned by its EXIF orientation as pictures are.

    Two values (grey of 8 or 16 bits, palette indices, colours, or transparent and not): what is not 0, black or
    transparent is the class. Grey masks with soft edges, as JPEG writes them: more than 127 of 255.

    Raises:
        SurgdinoError: not a readable image, or one of more classes or colours.
    """
    image_size(path)  # refuses what is no image, is cut short, or has too many pixels
    try:
        with Image.open(path) as image:
            pixels = _one_channel(np.asarray(ImageOps.exif_transpose(image)))
    except (OSError, SyntaxError, ValueError) as error:
        fix = "copy it again"
        raise SurgdinoError("is not a readable mask", file=path, expected="an image", fix=fix) from error
    if pixels is not None:
        values = np.unique(pixels)
        top = int(values[-1])
        if (len(values) == 2 and values[0] == 0) or top in (0, 1) or (len(values) == 1 and top in (255, 65535)):
            return pixels > 0
        soft = pixels[(pixels > _DARK) & (pixels < 255 - _DARK)]
        if top <= 255 and top > THRESHOLD and 2 * soft.size <= (pixels > _DARK).sum():
            return pixels > THRESHOLD
    found = "several colours" if pixels is None else f"{len(values)} values, {int(values[0])} to {top}"
    raise SurgdinoError(
        "not a mask of one class",
        file=path,
        expected="two values or two colours, one of them black",
        found=found,
        fix="export one mask a class",
    )


def _one_channel(pixels: np.ndarray) -> np.ndarray | None:
    """[H, W] from grey, palette, colour or transparency; None where there are more than two colours."""
    if pixels.dtype == bool or pixels.ndim == 2:
        return pixels.astype(np.uint8) if pixels.dtype == bool else pixels
    if pixels.shape[2] in (2, 4):
        alpha = pixels[..., -1]
        shown = np.where(alpha[..., None] > 0, pixels[..., :-1], 0)
        if not shown.any():
            return alpha
        pixels = shown
    if (pixels == pixels[..., :1]).all():
        return np.asarray(pixels[..., 0])
    coloured = np.asarray(pixels.any(axis=-1))
    colours = pixels[coloured]
    return np.asarray(coloured, np.uint8) if (colours == colours[0]).all() else None


def read_masks(frame: FrameMasks, classes: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """All masks of a picture.

    Args:
        frame: the picture's masks.
        classes: in the order of the channels.

    Returns:
        bool [classes, H, W] of the picture's own size, and bool [classes]: whether the class is labelled at all. Where
        it's not, its channel is empty and means nothing.

    Raises:
        SurgdinoError: a mask can't be read, or has another size than its picture.
    """
    width, height = image_size(frame.image)
    masks = np.zeros((len(classes), height, width), dtype=bool)
    for channel, name in enumerate(classes):
        path = frame.files.get(name)
        if path is None:
            continue
        mask = read_mask(path)
        if mask.shape != (height, width):
            found = f"{mask.shape[1]}x{mask.shape[0]}"
            raise SurgdinoError("the mask has another size", file=path, expected=f"{width}x{height}", found=found)
        masks[channel] = mask
    return masks, np.array([name in frame.files for name in classes], dtype=bool)
