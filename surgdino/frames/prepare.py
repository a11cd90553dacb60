"""From a decoded frame to what is stored of it: cropped to the content, shrunk, flagged, encoded."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import cv2
import numpy as np

from surgdino.frames.content import Content, fit_near, frame_flags
from surgdino.frames.video.decode import Frame, VideoInfo, resize, scaled_size

# A disc that wanders does so slowly: it is looked for again after this many seconds.
_DISC_SECONDS = 0.999


class FramePreparer:
    """Prepares the frames of one video, in order; they may come at any scale of their source."""

    def __init__(self, info: VideoInfo, content: Content, short_side: int, quality: int, crop: bool) -> None:
        """Args:
        info: of the source.
        content: what its frames share, in source pixels.
        short_side: pixels of the stored frame's shorter side.
        quality: of the JPEG.
        crop: whether to crop to the content's box.
        """
        self._info, self._content, self._quality = info, content, quality
        self._box = content.box if crop else (0, 0, info.width, info.height)
        box_width, box_height = self._box[2] - self._box[0], self._box[3] - self._box[1]
        self.size = scaled_size(box_width, box_height, short_side)
        # At this shorter side a whole frame has the scale in which it is stored, and needs no further resizing.
        self.short_side = max(1, round(min(info.width, info.height) * self.size[0] / box_width))
        self._disc, self._disc_time = content, -np.inf

    def __call__(self, frame: Frame) -> tuple[bytes, set[str], Content]:
        """Returns the JPEG, the flags, and this very frame's content in stored pixels."""
        info, (height, width) = self._info, frame.image.shape[:2]
        if frame.time - self._disc_time > _DISC_SECONDS:
            common = self._content.crop_and_scale((0, 0, info.width, info.height), height, width)
            found = fit_near(frame.image, common)
            self._disc = found.crop_and_scale((0, 0, width, height), info.height, info.width)
            self._disc_time = frame.time
        left, top, right, bottom = (round(side * width / info.width) for side in self._box)
        picture = resize(frame.image[top:bottom, left:right], self.size)
        content = self._disc.crop_and_scale(self._box, self.size[1], self.size[0])
        return _jpeg(picture, self._quality), frame_flags(picture, content), content

    def describe(self) -> dict[str, Any]:
        """The content the video shares, in stored pixels, and how the stored frame lies in the source."""
        content = self._content.crop_and_scale(self._box, self.size[1], self.size[0])
        return {**asdict(content), "source_box": self._box, "source_size": (self._info.width, self._info.height)}


def _jpeg(picture: np.ndarray, quality: int) -> bytes:
    _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return jpeg.tobytes()
