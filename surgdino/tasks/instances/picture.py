"""What was found on the picture it was found in: the mask as a veil, the box, and the name with its probability."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from surgdino.report.colours import class_colours, readable_name
from surgdino.report.sheet import GROUND, INK, rgb
from surgdino.tasks.instances.coco import Row
from surgdino.tasks.segmentation.overlay import VEIL, write_jpeg

_LINE = 240  # pixels of the picture's shorter side to one of a line's width
_TEXT = 900  # the same to one of the letters' scale


def drawn(image: np.ndarray, found: Sequence[Row], classes: Sequence[str]) -> np.ndarray:
    """The picture with what was found, uint8 [H, W, 3] RGB; the surest lie on top.

    Args:
        image: uint8 [H, W, 3] RGB.
        found: rows of COCO's results, in the picture's own pixels; or annotations, which have no score.
    """
    from pycocotools.mask import decode

    picture, colours = image.astype(np.float32), {n: rgb(c) for n, c in class_colours(classes).items()}
    ranked = sorted(found, key=lambda row: row.get("score", 1))
    for row in ranked:
        if row.get("segmentation"):
            inside = decode(row["segmentation"]).astype(bool)
            picture[inside] += VEIL * (np.array(colours[classes[row["category_id"] - 1]]) - picture[inside])
    flat = np.ascontiguousarray(picture.round().astype(np.uint8))
    side = min(image.shape[:2])
    line, scale = max(1, round(side / _LINE)), max(side / _TEXT, 0.35)
    for row in ranked:
        name = classes[row["category_id"] - 1]
        left, top, width, height = (round(value) for value in row["bbox"])
        cv2.rectangle(flat, (left, top), (left + width, top + height), colours[name], line)
        text = readable_name(name) + (f" {row['score']:.2f}" if "score" in row else "")
        (long, high), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
        x = min(max(left, 0), max(image.shape[1] - long, 0))
        y = top - below if top - below - high >= 0 else min(top + high + below, image.shape[0] - below)
        cv2.rectangle(flat, (x, y - high - below // 2), (x + long, y + below), rgb(GROUND), -1)
        cv2.rectangle(flat, (x, y + below - line), (x + long, y + below), colours[name], -1)
        cv2.putText(flat, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, rgb(INK), 1, cv2.LINE_AA)
    return flat


def write_picture(path: Path, image: np.ndarray, found: Sequence[Row], classes: Sequence[str]) -> Path:
    """That picture as JPEG."""
    return write_jpeg(path, drawn(image, found, classes))
