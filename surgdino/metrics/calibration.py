"""Calibration: whether what a classifier is sure of is right as often as it says."""

from __future__ import annotations

import numpy as np

BINS = 15


def expected_calibration_error(probabilities: np.ndarray, truth: np.ndarray, bins: int = BINS) -> float:
    """The mean gap between confidence and accuracy, over bins of equal width weighted by their frames.

    Guo et al. 2017 (arXiv 1706.04599), equation 3; a bin (low, high] holds the largest probabilities in it.

    Args:
        probabilities: float [n, classes], each row summing to 1.
        truth: int [n], class ids.

    Returns:
        In [0, 1]; NaN where there are no frames.
    """
    if not len(truth):
        return float("nan")
    confidence = probabilities.max(1)
    right = probabilities.argmax(1) == truth
    of_bin = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gap = np.bincount(of_bin, right - confidence, minlength=bins)
    return float(np.abs(gap).sum() / len(truth))
