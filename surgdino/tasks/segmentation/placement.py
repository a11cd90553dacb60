"""Where a stored frame lies in its picture, so that masks follow it there and predictions find their way back.

The frame store cuts a picture to its content and shrinks it; masks are of the whole picture. Every resize on the way
maps pixel centres as OpenCV's and torch's (`align_corners=False`) do, so pictures and masks stay aligned.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from surgdino.frames.shard import Shard


@dataclass(frozen=True)
class Placement:
    """How one picture was stored.

    Attributes:
        source: (width, height) of the picture.
        box: (x0, y0, x1, y1) of the stored part in the picture's pixels, half-open.
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
        """Masks of the picture as they lie in the stored frame.

        Args:
            masks: bool [C, H, W], of the picture's own size.
            size: (width, height) of the result; the stored frame's, or that of the square which the backbone is given.

        Returns:
            uint8 [C, height, width]: how much of each pixel the class covers, 255 being all of it.
        """
        x0, y0, x1, y1 = self.box
        return np.stack([_resize(mask[y0:y1, x0:x1].view(np.uint8) * 255, size) for mask in masks])

    def to_picture(self, logits: np.ndarray) -> np.ndarray:
        """Masks of the picture's own size, bool [C, H, W]; there's background where the frame doesn't reach.

        Args:
            logits: float32 [C, h, w] over the stored frame, at any resolution: above 0 is the class.
        """
        x0, y0, x1, y1 = self.box
        masks = np.zeros((len(logits), self.source[1], self.source[0]), dtype=bool)
        for mask, plane in zip(masks, logits, strict=True):
            enlarged = cv2.resize(plane, (x1 - x0, y1 - y0), interpolation=cv2.INTER_LINEAR)
            np.greater(enlarged, 0, out=mask[y0:y1, x0:x1])
        return masks


def _resize(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if (mask.shape[1], mask.shape[0]) == size:
        return mask
    # Area averaging is the share that is covered, but only where both sides shrink; elsewhere it repeats pixels.
    shrinks = mask.shape[1] >= size[0] and mask.shape[0] >= size[1]
    return cv2.resize(mask, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
