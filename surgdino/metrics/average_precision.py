"""Average precision of many classes at once, the sum over thresholds of (R_k - R_{k-1}) P_k, ties taken together.

The same numbers as scikit-learn's `average_precision_score`, except that a class without a positive is NaN (some
versions of scikit-learn give 0 there and so lower every mean).
"""

from __future__ import annotations

import numpy as np


class RankedScores:
    """Scores sorted once, so that resampled frames (a bootstrap over operations) cost no further sorting.

    Args:
        truth: bool [n, c].
        scores: float [n, c], finite.
    """

    def __init__(self, truth: np.ndarray, scores: np.ndarray) -> None:
        rows, self.classes = truth.shape
        self._order = np.argsort(-scores, axis=0, kind="stable")
        ranked_truth = np.take_along_axis(truth, self._order, axis=0)
        ranked_scores = np.take_along_axis(scores, self._order, axis=0)
        last_of_tie = np.ones((rows, self.classes), dtype=bool)
        last_of_tie[:-1] = ranked_scores[:-1] != ranked_scores[1:]
        # Where each rank's threshold ends: the nearest last-of-tie at or below it.
        place = np.where(last_of_tie, np.arange(rows)[:, None], rows)
        threshold_end = np.minimum.accumulate(place[::-1], axis=0)[::-1]
        self._rank, self._class = np.nonzero(ranked_truth)
        self._end = threshold_end[self._rank, self._class]
        self._ranked_truth = ranked_truth

    def average_precision(self, weight: np.ndarray | None = None) -> np.ndarray:
        """float64 [c], NaN where a class has no positive.

        Args:
            weight: [n], how often each row counts; None counts each once.
        """
        if weight is None:
            weight = np.ones(len(self._order))
        ranked_weight = np.asarray(weight, dtype=np.float64)[self._order]
        seen = np.cumsum(ranked_weight, axis=0)
        hit = np.cumsum(ranked_weight * self._ranked_truth, axis=0)
        own = ranked_weight[self._rank, self._class]
        # Only positives move recall. A positive that was not drawn may precede everything drawn: 0 / 0, worth nothing.
        seen_there = seen[self._end, self._class]
        precision = hit[self._end, self._class] / np.where(seen_there > 0, seen_there, 1.0)
        total = np.bincount(self._class, own * precision, minlength=self.classes)
        positives = np.bincount(self._class, own, minlength=self.classes)
        with np.errstate(invalid="ignore"):
            return total / positives


def average_precision(truth: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Average precision of each class: truth bool [n, c], scores float [n, c] -> float64 [c], NaN without a positive."""
    return RankedScores(truth, scores).average_precision()
