"""Where a crop may lie: boxes whose four corners stay inside the endoscope's picture.

`scale` counts in shares of the largest box of the same aspect that fits, so every scale is possible and no draw is
wasted: where the disc is small, a tenth of an ordinary random crop of a Cholec80 frame is black border.
"""

from __future__ import annotations

import math
import random
from typing import NamedTuple

from surgdino.frames.content import Content

Box = tuple[int, int, int, int]
_TRIES = 8


class Region(NamedTuple):
    """A frame's picture in continuous coordinates (pixel i spans i to i + 1): a disc cut off by a rectangle.

    Where there is no disc its radius is infinite, and nothing else changes.
    """

    x0: float
    y0: float
    x1: float
    y1: float
    cx: float
    cy: float
    radius: float

    @classmethod
    def of(cls, content: Content, height: int, width: int) -> Region:
        """The content of a frame of that size."""
        x0, y0, x1, y1 = content.box
        x0, y0, x1, y1 = max(0, x0), max(0, y0), min(width, x1), min(height, y1)
        if content.cx is None or content.cy is None or content.radius is None:
            return cls(x0, y0, x1, y1, (x0 + x1) / 2, (y0 + y1) / 2, math.inf)
        return cls(x0, y0, x1, y1, content.cx + 0.5, content.cy + 0.5, content.radius)

    def holds(self, x: float, y: float, box_width: float, box_height: float) -> bool:
        """Whether the disc holds the corners of a box about (x, y)."""
        far_x, far_y = abs(x - self.cx) + box_width / 2, abs(y - self.cy) + box_height / 2
        return far_x * far_x + far_y * far_y <= self.radius * self.radius * (1 + 1e-9)

    def anchor(self, box_width: float, box_height: float) -> tuple[float, float]:
        """The centre nearest to the disc's that keeps the box in the rectangle; if it fits anywhere, it fits here."""
        left, right = self.x0 + box_width / 2, self.x1 - box_width / 2
        top, bottom = self.y0 + box_height / 2, self.y1 - box_height / 2
        return min(max(self.cx, left), right), min(max(self.cy, top), bottom)


def largest_inscribed(content: Content, height: int, width: int, aspect: float) -> tuple[float, float]:
    """Width and height in pixels of the largest box of `aspect` = width / height inside the content of a frame.

    Args:
        content: the frame's disc or rectangle, in its pixels.
        height: of the frame; the content is cut off at its rim.
    """
    return _largest(Region.of(content, height, width), aspect)


def sample_box(
    content: Content,
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    rng: random.Random,
) -> Box:
    """A random crop (x0, y0, x1, y1), half-open integer pixels, inside the content.

    Args:
        scale: range of the crop's area as a share of the largest box of its aspect that fits.
        ratio: range of width / height; drawn log-uniformly.
    """
    region = Region.of(content, height, width)
    aspect = math.exp(_between(rng, math.log(ratio[0]), math.log(ratio[1])))
    side = math.sqrt(_between(rng, *scale))
    largest_width, largest_height = _largest(region, aspect)
    box_width, box_height = max(1.0, side * largest_width), max(1.0, side * largest_height)
    x, y = _sample_centre(region, box_width, box_height, rng)
    return _to_pixels(x, y, box_width, box_height, region)


def _largest(region: Region, aspect: float) -> tuple[float, float]:
    framed = min(region.y1 - region.y0, (region.x1 - region.x0) / aspect)
    tallest = min(framed, 2 * region.radius / math.hypot(1, aspect))

    def fits(box_height: float) -> bool:
        box_width = aspect * box_height
        return region.holds(*region.anchor(box_width, box_height), box_width, box_height)

    if fits(tallest):
        return aspect * tallest, tallest
    low, high = 0.0, tallest
    for _ in range(14):  # only where the frame cuts the disc off on one side; to a hundredth of a pixel
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return aspect * low, low


def _sample_centre(region: Region, box_width: float, box_height: float, rng: random.Random) -> tuple[float, float]:
    """Uniform over the places where the box fits (bounded tries; the last is pulled to the middle until it fits)."""
    reach_x = math.sqrt(max(0.0, region.radius**2 - box_height**2 / 4)) - box_width / 2
    reach_y = math.sqrt(max(0.0, region.radius**2 - box_width**2 / 4)) - box_height / 2
    left = max(region.x0 + box_width / 2, region.cx - reach_x)
    right = min(region.x1 - box_width / 2, region.cx + reach_x)
    top = max(region.y0 + box_height / 2, region.cy - reach_y)
    bottom = min(region.y1 - box_height / 2, region.cy + reach_y)
    for _ in range(_TRIES):
        x, y = _between(rng, left, right), _between(rng, top, bottom)
        if region.holds(x, y, box_width, box_height):
            return x, y
    anchor_x, anchor_y = region.anchor(box_width, box_height)
    for _ in range(12):  # the places form a convex set that holds the anchor
        x, y = (x + anchor_x) / 2, (y + anchor_y) / 2
        if region.holds(x, y, box_width, box_height):
            return x, y
    return anchor_x, anchor_y


def _between(rng: random.Random, low: float, high: float) -> float:
    return low + (high - low) * rng.random() if high > low else (low + high) / 2


def _to_pixels(x: float, y: float, box_width: float, box_height: float, region: Region) -> Box:
    # Rounding the corner and the size apart would let a box leave the frame; the size is kept, the corner gives way.
    x0, y0, x1, y1 = round(region.x0), round(region.y0), round(region.x1), round(region.y1)
    pixels_w, pixels_h = min(max(1, round(box_width)), x1 - x0), min(max(1, round(box_height)), y1 - y0)
    left = min(max(round(x - box_width / 2), x0), x1 - pixels_w)
    top = min(max(round(y - box_height / 2), y0), y1 - pixels_h)
    return left, top, left + pixels_w, top + pixels_h
