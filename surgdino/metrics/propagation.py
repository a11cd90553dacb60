"""Masks carried through a video: region J, boundary F, and their course over time, as DAVIS defines them.

Perazzi et al. 2016 and Pont-Tuset et al. 2017. Unlike in `metrics/segmentation.py`, an object that is in neither mask
counts as found (J = F = 1), and one that is in just one of them as missed (0).
"""

from __future__ import annotations

import math
from itertools import pairwise

import cv2
import numpy as np

from surgdino.errors import SurgdinoError
from surgdino.metrics.arrays import nanmean, ratio

TOLERANCE = 0.008  # of the picture's diagonal: how far from each other boundaries still match


def region_scores(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """J, float64 [c]: intersection over union; 1 where both masks are empty.

    Args:
        truth, prediction: bool [c, h, w].
    """
    _check(truth, prediction)
    union = (truth | prediction).sum((1, 2))
    return np.where(union > 0, ratio((truth & prediction).sum((1, 2)), union), 1.0)


def boundary_scores(truth: np.ndarray, prediction: np.ndarray, tolerance: float = TOLERANCE) -> np.ndarray:
    """F, float64 [c]: the harmonic mean of the shares of both boundaries that lie near the other one; 1 where neither
    mask has a boundary, 0 where just one has.

    Near is within ceil(tolerance * diagonal) pixels, which is a dilation by a disc of that radius.

    Args:
        truth, prediction: bool [c, h, w].
        tolerance: share of the diagonal.
    """
    _check(truth, prediction)
    reach = math.ceil(tolerance * math.hypot(*truth.shape[1:]))
    return np.array([_boundary_score(*pair, reach) for pair in zip(truth, prediction, strict=True)], np.float64)


def boundary(mask: np.ndarray) -> np.ndarray:
    """bool [h, w]: pixels that differ from the one to the right, below, or below to the right."""
    around = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    return (mask != around[:-1, 1:]) | (mask != around[1:, :-1]) | (mask != around[1:, 1:])


def course(values: np.ndarray) -> tuple[float, float, float]:
    """(mean, recall, decay) of one object's J or F over the frames of its video.

    Recall is the share of frames above 0.5; decay is the mean of the first quarter less that of the last, the quarters
    sharing the frames at which they meet. Undefined (NaN) frames do not count.
    """
    values = np.asarray(values, np.float64)
    ends = np.round(np.linspace(1, len(values), 5) + 1e-10).astype(int) - 1
    quarters = [values[start : end + 1] for start, end in pairwise(ends)]
    recall = nanmean(np.where(np.isnan(values), np.nan, values > 0.5))
    return float(nanmean(values)), float(recall), float(nanmean(quarters[0]) - nanmean(quarters[-1]))


def _boundary_score(truth: np.ndarray, prediction: np.ndarray, reach: int) -> float:
    lines = [boundary(mask) for mask in (truth, prediction)]
    if not all(line.any() for line in lines):
        return float(not any(line.any() for line in lines))
    rows, columns = (np.flatnonzero((lines[0] | lines[1]).any(axis)) for axis in (1, 0))
    true, found = (line[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] for line in lines)
    precision, recall = (_near(line, other, reach).mean() for line, other in ((found, true), (true, found)))
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def _near(line: np.ndarray, other: np.ndarray, reach: int) -> np.ndarray:
    """bool: of each pixel of `line`, whether `other` has one within `reach`."""
    distance = cv2.distanceTransform((~other).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(distance[line] < reach + 1e-3)  # distances are roots of whole numbers


def _check(truth: np.ndarray, prediction: np.ndarray) -> None:
    for mask in (truth, prediction):
        if mask.dtype != bool or mask.ndim != 3 or not mask.size or mask.shape != truth.shape:
            found = f"{mask.dtype} {list(mask.shape)}"
            raise SurgdinoError("not the masks of the same objects", expected=f"bool {list(truth.shape)}", found=found)
