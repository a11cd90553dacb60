"""Where in a frame the picture is: the endoscope's disc, the rectangle inside black bars, or all of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np

from surgdino.frames.disc import brightness, fit_disc, lit_mask

# A video has a disc when this share of its frames, without the black ones, show one.
_MIN_DISC_SHARE = 0.3
# Bars are rows and columns where less than a tenth is lit in a twentieth of the frames; overlay text stays below that.
_BAR_LIT, _EVER_LIT = 0.1, 0.05
_NEARLY_ALL = 0.97
# A frame's own disc counts when it lies this near to the video's, in radii.
_WANDER = 0.2
_BLACK, _DARK = 24, 30
_COLOURED = 45
_MAX_TISSUE, _MIN_DRAPE, _MIN_GREY = 0.03, 0.3, 0.8


@dataclass(frozen=True)
class Content:
    """The part of a frame that shows something.

    Attributes:
        kind: `disc`, `rectangle` (inside black bars), or `full`.
        box: (x0, y0, x1, y1) in pixels, half-open; for a disc, its bounding box within the frame.
        cx: the disc's centre in pixels, pixel centres at integers; None unless a disc.
        cy: as cx.
        radius: pixels; None unless a disc. The disc may reach beyond the frame.
    """

    kind: Literal["disc", "rectangle", "full"]
    box: tuple[int, int, int, int]
    cx: float | None = None
    cy: float | None = None
    radius: float | None = None

    @classmethod
    def full(cls, height: int, width: int) -> Content:
        """All of a frame."""
        return cls("full", (0, 0, width, height))

    @classmethod
    def disc(cls, cx: float, cy: float, radius: float, height: int, width: int) -> Content:
        """A disc in a frame of that size."""
        box = (
            max(0, math.floor(cx - radius + 0.5)),
            max(0, math.floor(cy - radius + 0.5)),
            min(width, math.ceil(cx + radius + 0.5)),
            min(height, math.ceil(cy + radius + 0.5)),
        )
        return cls("disc", box, cx, cy, radius)

    @property
    def circle(self) -> tuple[float, float, float]:
        """(cx, cy, radius) of a disc; asked of nothing else."""
        if self.cx is None or self.cy is None or self.radius is None:
            raise ValueError(f"content of kind {self.kind} has no circle")
        return self.cx, self.cy, self.radius

    def crop_and_scale(self, box: tuple[int, int, int, int], height: int, width: int) -> Content:
        """The same content after cropping the frame to `box` and resizing the crop to height x width pixels."""
        x0, y0, x1, y1 = box
        sx, sy = width / (x1 - x0), height / (y1 - y0)
        if self.kind == "disc":
            cx, cy, radius = self.circle
            cx, cy = (cx + 0.5 - x0) * sx - 0.5, (cy + 0.5 - y0) * sy - 0.5
            return Content.disc(cx, cy, radius * math.sqrt(sx * sy), height, width)
        left, right = (min(max(round((x - x0) * sx), 0), width) for x in (self.box[0], self.box[2]))
        top, bottom = (min(max(round((y - y0) * sy), 0), height) for y in (self.box[1], self.box[3]))
        if (left, top, right, bottom) == (0, 0, width, height):
            return Content.full(height, width)
        return replace(self, box=(left, top, right, bottom))


def detect_content(images: Sequence[np.ndarray]) -> Content:
    """What the frames of one video, uint8 [H, W, 3], have in common: a disc, black bars, or neither.

    A circle is fitted in each frame and the median taken: robust to dark frames, frames without the disc (outside the
    body, zoomed in), overlay text and a disc that moves. Needs at least one frame.
    """
    height, width = images[0].shape[:2]
    usable = [image for image in images if not is_black(image)] or list(images)
    discs = np.array([circle for circle in map(fit_disc, usable) if circle is not None])
    if len(discs) >= max(1, _MIN_DISC_SHARE * len(usable)):
        cx, cy, radius = np.median(discs, axis=0)
        return Content.disc(float(cx), float(cy), float(radius), height, width)
    return _rectangle(usable, height, width)


def fit_near(image: np.ndarray, content: Content) -> Content:
    """The disc of one frame, uint8 [H, W, 3], which may move by a few percent; `content` where none is clear."""
    found = fit_disc(image) if content.kind == "disc" else None
    if found is None:
        return content
    moved = max(abs(a - b) for a, b in zip(found, content.circle, strict=True))
    return content if moved > _WANDER * content.circle[2] else Content.disc(*found, *image.shape[:2])


def content_mask(content: Content, height: int, width: int) -> np.ndarray:
    """bool [height, width], True where a frame of that size shows something."""
    y, x = np.ogrid[:height, :width]
    if content.kind == "disc":
        cx, cy, radius = content.circle
        return (x - cx) ** 2 + (y - cy) ** 2 <= radius**2
    x0, y0, x1, y1 = content.box
    return (x >= x0) & (x < x1) & (y >= y0) & (y < y1)


def is_black(image: np.ndarray) -> bool:
    """Whether a frame, uint8 [H, W, 3], shows nothing: not even its brightest hundredth is lit."""
    small = brightness(np.ascontiguousarray(image[::4, ::4]))
    return cv2.countNonZero((small >= _BLACK).astype(np.uint8)) < 0.01 * small.size


def frame_flags(image: np.ndarray, content: Content) -> set[str]:
    """Reasons not to learn from a frame: `black` (nothing to see) or `out_of_body` (no tissue in sight).

    A frame is out of the body when hardly any pixel of its content has a colour of tissue under white light (red, pink,
    orange, yellow), and blue or green drapes, or white and grey, cover it. The inside of a white trocar with tissue at
    its end stays in. Error rates on real frames are in docs/benchmarks.md.

    Args:
        image: uint8 [H, W, 3] RGB.
        content: in the same pixels.
    """
    if is_black(image):
        return {"black"}
    height, width = image.shape[:2]
    step = max(1, min(height, width) // 64)
    small = np.ascontiguousarray(image[::step, ::step])
    inside = content_mask(content.crop_and_scale((0, 0, width, height), *small.shape[:2]), *small.shape[:2])
    hue, saturation, value = (plane[inside] for plane in cv2.split(cv2.cvtColor(small, cv2.COLOR_RGB2HSV)))
    lit = value > _DARK
    if np.count_nonzero(lit) < 0.05 * lit.size:
        return set()  # dim, but not black: its colours are unreliable
    hue, coloured = hue[lit], saturation[lit] > _COLOURED
    tissue = (coloured & ((hue < 25) | (hue > 155))).mean()
    drape = (coloured & (hue > 40) & (hue < 135)).mean()
    outside = tissue < _MAX_TISSUE and (drape > _MIN_DRAPE or coloured.mean() < 1 - _MIN_GREY)
    return {"out_of_body"} if outside else set()


def _rectangle(images: Sequence[np.ndarray], height: int, width: int) -> Content:
    """The area within black bars: the span of rows and columns that are ever lit along part of their length."""
    masks = [lit_mask(image) for image in images]
    if sum(found is None for found in masks) > len(masks) / 2:
        return Content.full(height, width)
    factor = next(found[1] for found in masks if found is not None)
    lit = np.mean([found[0] for found in masks if found is not None], axis=0) > _EVER_LIT
    spans = []
    for axis, size in ((0, width), (1, height)):
        lines = np.flatnonzero(lit.mean(axis=axis) > _BAR_LIT)
        if not len(lines):
            return Content.full(height, width)
        # The outermost lit lines of the small copy may be half bar: left out, unless they touch the frame's edge.
        start = 0 if lines[0] == 0 else (int(lines[0]) + 1) * factor
        stop = size if lines[-1] == lit.shape[1 - axis] - 1 else int(lines[-1]) * factor
        spans.append((start, stop))
    (x0, x1), (y0, y1) = spans
    if (x1 - x0) * (y1 - y0) > _NEARLY_ALL * height * width or x1 <= x0 or y1 <= y0:
        return Content.full(height, width)
    return Content("rectangle", (x0, y0, x1, y1))
