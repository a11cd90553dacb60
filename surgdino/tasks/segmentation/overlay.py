"""Masks over the picture they belong to: a thin veil of the class's colour inside, its full colour at the edge."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from surgdino.paths import atomic_write
from surgdino.report.colours import class_colours, readable_name
from surgdino.report.sheet import GROUND, INK, rgb

VEIL = 0.35  # share of the class's colour inside of a mask
_EDGE = 200  # pixels of the picture's shorter side to one of the edge's width
_QUALITY = 92  # of the JPEG: a video has thousands of them
_STRIP = 36  # pixels of the legend's height for a picture of 480 lines; grows with it


def overlay(image: np.ndarray, masks: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """The picture with its masks, uint8 [H, W, 3] RGB.

    Masks may overlap: later classes lie above earlier ones. Every class keeps the colour that it has everywhere.

    Args:
        image: uint8 [H, W, 3] RGB.
        masks: bool [C, H, W].
        classes: C names.
    """
    if masks.shape != (len(classes), *image.shape[:2]):
        raise ValueError(f"expected masks {(len(classes), *image.shape[:2])}, found {masks.shape}")
    drawn = image.astype(np.float32)
    colours = {name: np.array(rgb(colour), np.float32) for name, colour in class_colours(classes).items()}
    reach = 2 * max(1, round(min(image.shape[:2]) / _EDGE)) + 1
    for name, mask in zip(classes, masks, strict=True):
        drawn[mask] += VEIL * (colours[name] - drawn[mask])
    for name, mask in zip(classes, masks, strict=True):
        inner = cv2.erode(mask.astype(np.uint8), np.ones((reach, reach), np.uint8))  # beyond the picture nothing erodes
        drawn[mask & (inner == 0)] = colours[name]
    return drawn.round().astype(np.uint8)


def with_legend(picture: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """The picture with a strip under it that names the classes beside their colours; as many rows as they need."""
    height, width = picture.shape[:2]
    unit = max(16, round(_STRIP * height / 480))
    scale, colours = unit / 60, class_colours(classes)
    places: list[tuple[int, int, str]] = []
    x, row = unit // 2, 0
    for name in classes:
        (length, _), _ = cv2.getTextSize(readable_name(name), cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
        needed = unit + length + unit // 2
        if x + needed > width and x > unit // 2:
            x, row = unit // 2, row + 1
        places.append((x, row, name))
        x += needed
    strip = np.empty((unit * (row + 1), width, 3), np.uint8)
    strip[:] = rgb(GROUND)
    for x, row, name in places:
        top = row * unit + unit // 4
        strip[top : top + unit // 2, x : x + unit // 2] = rgb(colours[name])
        at = (x + 3 * unit // 4, top + unit // 2 - 1)
        cv2.putText(strip, readable_name(name), at, cv2.FONT_HERSHEY_SIMPLEX, scale, rgb(INK), 1, cv2.LINE_AA)
    return np.concatenate([picture, strip])


def write_overlay(path: Path, image: np.ndarray, masks: np.ndarray, classes: Sequence[str]) -> Path:
    """The picture with its masks and their names, as JPEG.

    Args:
        image: uint8 [H, W, 3] RGB.
        masks: bool [C, H, W].
    """
    return write_jpeg(path, with_legend(overlay(image, masks, classes), classes))


def write_jpeg(path: Path, drawn: np.ndarray) -> Path:
    """A drawn picture, uint8 [H, W, 3] RGB."""
    _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    with atomic_write(path) as temporary:
        temporary.write_bytes(jpeg.tobytes())
    return path
