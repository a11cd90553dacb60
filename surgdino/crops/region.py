"""Where a crop may lie: boxes whose four corners stay inside the endoscope's picture.

`scale` counts in shares of the largest box of the same aspect that fits, so every scale can be had and nothing is drawn
in vain: an ordinary random crop of a Cholec80 frame is about a third black border.
"""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from surgdino.frames.content import Content

Box = tuple[int, int, int, int]
_TRIES = 8


def largest_inscribed(content: Content, height: int, width: int, aspect: float) -> tuple[float, float]:
    """Width and height in pixels of the largest box of `aspect` = width / height inside the content of a frame.

    Args:
        content: the frame's disc or rectangle, in its pixels.
        height: of the frame; the content is cut off at its rim.
    """
    x0, y0, x1, y1 = _bounds(content, height, width)
    tallest = min(y1 - y0, (x1 - x0) / aspect)
    if content.kind != "disc":
        return aspect * tallest, tallest
    tallest = min(tallest, 2 * content.radius / math.hypot(1, aspect))
    low, high = 0.0, tallest
    if _fits(content, (x0, y0, x1, y1), aspect * tallest, tallest):
        return aspect * tallest, tallest
    for _ in range(14):  # only where the frame cuts the disc off on one side; to a hundredth of a pixel
        middle = (low + high) / 2
        low, high = (middle, high) if _fits(content, (x0, y0, x1, y1), aspect * middle, middle) else (low, middle)
    return aspect * low, low


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
    aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
    side = math.sqrt(rng.uniform(*scale))
    box_width, box_height = (max(1.0, side * edge) for edge in largest_inscribed(content, height, width, aspect))
    bounds = _bounds(content, height, width)
    x, y = _sample_centre(content, bounds, box_width, box_height, rng)
    return _to_pixels(x, y, box_width, box_height, bounds)


def _sample_centre(
    content: Content, bounds: tuple[float, float, float, float], box_width: float, box_height: float, rng: random.Random
) -> tuple[float, float]:
    """Uniform over the places where the box fits (bounded tries; the last is pulled to the middle until it fits)."""
    x0, y0, x1, y1 = bounds
    left, right = x0 + box_width / 2, x1 - box_width / 2
    top, bottom = y0 + box_height / 2, y1 - box_height / 2
    anchor_x, anchor_y = _nearest_to_centre(content, left, right, top, bottom)
    if content.kind != "disc":
        return _between(rng, left, right), _between(rng, top, bottom)
    radius, centre_x, centre_y = content.radius, content.cx + 0.5, content.cy + 0.5
    reach_x = max(0.0, math.sqrt(max(0.0, radius**2 - box_height**2 / 4)) - box_width / 2)
    reach_y = max(0.0, math.sqrt(max(0.0, radius**2 - box_width**2 / 4)) - box_height / 2)
    left, right = max(left, centre_x - reach_x), min(right, centre_x + reach_x)
    top, bottom = max(top, centre_y - reach_y), min(bottom, centre_y + reach_y)
    for _ in range(_TRIES):
        x, y = _between(rng, left, right), _between(rng, top, bottom)
        if _inside(content, x, y, box_width, box_height):
            return x, y
    for _ in range(12):  # the places form a convex set that holds the anchor
        x, y = (x + anchor_x) / 2, (y + anchor_y) / 2
        if _inside(content, x, y, box_width, box_height):
            return x, y
    return anchor_x, anchor_y


def _bounds(content: Content, height: int, width: int) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = content.box
    return max(0, x0), max(0, y0), min(width, x1), min(height, y1)


def _nearest_to_centre(content: Content, left: float, right: float, top: float, bottom: float) -> tuple[float, float]:
    if content.kind != "disc":
        return (left + right) / 2, (top + bottom) / 2
    return min(max(content.cx + 0.5, left), right), min(max(content.cy + 0.5, top), bottom)


def _fits(content: Content, bounds: tuple[float, float, float, float], box_width: float, box_height: float) -> bool:
    x0, y0, x1, y1 = bounds
    half_w, half_h = box_width / 2, box_height / 2
    x, y = _nearest_to_centre(content, x0 + half_w, x1 - half_w, y0 + half_h, y1 - half_h)
    return _inside(content, x, y, box_width, box_height)


def _inside(content: Content, x: float, y: float, box_width: float, box_height: float) -> bool:
    far_x = abs(x - content.cx - 0.5) + box_width / 2
    far_y = abs(y - content.cy - 0.5) + box_height / 2
    return far_x * far_x + far_y * far_y <= content.radius * content.radius * (1 + 1e-9)


def _between(rng: random.Random, low: float, high: float) -> float:
    return low + (high - low) * rng.random() if high > low else (low + high) / 2


def _to_pixels(
    x: float, y: float, box_width: float, box_height: float, bounds: tuple[float, float, float, float]
) -> Box:
    # Rounding the corner and the size apart would let a box leave the frame; the size is kept, the corner gives way.
    x0, y0, x1, y1 = (round(edge) for edge in bounds)
    pixels_w, pixels_h = min(max(1, round(box_width)), x1 - x0), min(max(1, round(box_height)), y1 - y0)
    left = min(max(round(x - box_width / 2), x0), x1 - pixels_w)
    top = min(max(round(y - box_height / 2), y0), y1 - pixels_h)
    return left, top, left + pixels_w, top + pixels_h
