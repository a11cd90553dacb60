"""Masks of one video or image: where they lie, which classes they tell of, and how a mask file is read.

Three things are told apart for every class of a picture: its mask is there, it is known to be absent, or nothing is
known of it. The last is what DSAD's single-organ folders have for ten of eleven organs; that isn't the same as absent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from surgdino.datasets.files import image_size
from surgdino.errors import SurgdinoError, from_os_error

# Masks kept as JPEG are blurred at their edges: 0..5 and 250..255 where 0 and 255 were meant.
THRESHOLD = 127


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
    """A binary mask as bool [H, W]: more than 127 of 255 in a grey image (of a coloured one, in its grey values).

    Raises:
        SurgdinoError: not a readable image.
    """
    try:
        data = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise from_os_error(error, path) from error
    image = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE) if data.size else None
    if image is None:
        raise SurgdinoError("is not a readable mask", file=path, expected="an image", fix="copy it again")
    # Some tools write masks as 0 and 1, which would all be below the threshold.
    return image > (THRESHOLD if image.max(initial=0) > 1 else 0)


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
