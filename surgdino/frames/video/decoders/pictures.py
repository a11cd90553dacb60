"""Pictures that are no recording, of any sizes: each is cut to its central square, as evaluations on ImageNet do."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from surgdino.errors import SurgdinoError
from surgdino.frames.video.decode import Decoder, Frame, VideoInfo, resize
from surgdino.frames.video.decoders.images import load_image

_SHARE = 224 / 256  # of the shorter side


class Pictures(Decoder):
    """Reads what `probe` lists of a set of pictures."""

    def read(self, info: VideoInfo, numbers: np.ndarray, size: tuple[int, int], threads: int) -> Iterator[Frame]:
        """Leaves out pictures that are unreadable."""
        for number in numbers.tolist():
            try:
                picture = load_image(info.source[number])
            except SurgdinoError:
                continue
            yield Frame(number, float(info.times[number]), central_square(picture, size))

    def fault(self, info: VideoInfo, number: int) -> SurgdinoError:
        """What is wrong with that picture."""
        try:
            load_image(info.source[number])
        except SurgdinoError as error:
            return error
        return super().fault(info, number)


def central_square(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 [H, W, 3] -> uint8 [size, size, 3]: the middle 7/8 of the shorter side, also where that enlarges it.

    The same as to bring the shorter side to 256 pixels and to cut out 224 x 224, at another scale.
    """
    height, width = picture.shape[:2]
    side = max(1, round(_SHARE * min(height, width)))
    top, left = (height - side) // 2, (width - side) // 2
    square = picture[top : top + side, left : left + side]
    return resize(square, size) if side >= size[0] else cv2.resize(square, size, interpolation=cv2.INTER_CUBIC)
