"""Detections of several members as one: weighted boxes fusion (Solovyev et al. 2021, arXiv 1910.13302)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from surgdino.tasks.instances.coco import PIXEL, SCORE, Row

_SAME = 0.55  # IoU of boxes that mean one object


def fused(members: Sequence[Sequence[Row]]) -> list[Row]:
    """Detections of one picture by several members, the surest first.

    Boxes of one class that overlap are one: their mean, weighted by their scores. Its score is the mean over all
    members, 0 for those that did not see it; its mask is the surest one's.
    """
    groups: list[list[Row]] = []
    for row in sorted((row for rows in members for row in rows), key=lambda row: -row["score"]):
        fits = [
            _iou(_mean_box(group), row["bbox"]) * (group[0]["category_id"] == row["category_id"]) for group in groups
        ]
        best = int(np.argmax(fits)) if fits else 0
        if fits and fits[best] > _SAME:
            groups[best].append(row)
        else:
            groups.append([row])
    found = []
    for group in groups:
        box = [round(float(side), PIXEL) for side in _mean_box(group)]
        score = round(sum(row["score"] for row in group[: len(members)]) / len(members), SCORE)
        area = group[0]["area"] if "segmentation" in group[0] else box[2] * box[3]
        found.append({**group[0], "bbox": box, "score": score, "area": area})
    return sorted(found, key=lambda row: -row["score"])


def _mean_box(group: Sequence[Row]) -> np.ndarray:
    return np.average([row["bbox"] for row in group], axis=0, weights=[row["score"] for row in group])


def _iou(first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray) -> float:
    (a, b), (c, d) = ((np.array(box[:2]), np.array(box[:2]) + box[2:]) for box in (first, second))
    inner = np.clip(np.minimum(b, d) - np.maximum(a, c), 0, None).prod()
    return float(inner / ((b - a).prod() + (d - c).prod() - inner))
