"""Average precision of many classes at once: the sum over thresholds of (R_k - R_{k-1}) P_k, ties taken together.

The same numbers as scikit-learn's `average_precision_score`, except that a class without a positive is NaN (some
versions of scikit-learn give 0 there and so lower every mean).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from surgdino.metrics.arrays import nanmean

Videos = list[tuple[str, np.ndarray, np.ndarray]]  # name, truth bool [n, c], scores float [n, c]


class RankedScores:
    """Scores sorted once, so that resampling the groups (videos) that the rows belong to costs no further sorting.

    Only positives move recall, so it suffices to keep, for each positive, how many rows and how many positives of each
    group score at least as high: G x positives numbers in place of rows x classes.

    Args:
        truth: bool [n, c].
        scores: float [n, c], finite.
        group: int [n] in 0..G-1; None puts all rows into one.
    """

    def __init__(self, truth: np.ndarray, scores: np.ndarray, group: np.ndarray | None = None) -> None:
        group = np.zeros(len(truth), dtype=np.int64) if group is None else group
        self._classes = truth.shape[1]
        # Class-major, so that sorting and summing run along memory: several times faster on a long video.
        scores, truth = np.ascontiguousarray(scores.T), np.ascontiguousarray(truth.T)
        order = np.argsort(-scores, axis=1)
        ranked_truth = np.take_along_axis(truth, order, axis=1)
        self._class, rank = np.nonzero(ranked_truth)
        end = _threshold_ends(np.take_along_axis(scores, order, axis=1))[self._class, rank]
        ranked_group = group[order]
        self._group = ranked_group[self._class, rank]
        groups = int(group.max()) + 1
        self._seen, self._hit = (np.empty((groups, len(rank))) for _ in range(2))
        for g in range(groups):
            member = ranked_group == g
            self._seen[g] = np.cumsum(member, axis=1, dtype=np.int32)[self._class, end]
            self._hit[g] = np.cumsum(member & ranked_truth, axis=1, dtype=np.int32)[self._class, end]

    def average_precision(self, weight: np.ndarray | None = None) -> np.ndarray:
        """float64 [c], NaN where a class has no positive.

        Args:
            weight: [G], how often each group's rows count; None counts each once.
        """
        weight = np.ones(len(self._seen)) if weight is None else np.asarray(weight, dtype=np.float64)
        own = weight[self._group]
        # A positive of a group that was not drawn may lead the ranking: 0 / 0 there, and worth nothing.
        precision = (weight @ self._hit) / np.maximum(weight @ self._seen, 1.0)
        total = np.bincount(self._class, own * precision, minlength=self._classes)
        positives = np.bincount(self._class, own, minlength=self._classes)
        with np.errstate(invalid="ignore"):
            return total / positives


def _threshold_ends(ranked_scores: np.ndarray) -> np.ndarray:
    """[c, n] -> int64 [c, n]: the last rank with the same score, where the threshold at this score ends."""
    ranks = ranked_scores.shape[1]
    last_of_tie = np.ones(ranked_scores.shape, dtype=bool)
    last_of_tie[:, :-1] = ranked_scores[:, :-1] != ranked_scores[:, 1:]
    place = np.where(last_of_tie, np.arange(ranks), ranks)
    return np.minimum.accumulate(place[:, ::-1], axis=1)[:, ::-1]


def average_precision(truth: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The average precision of each class: truth bool [n, c], scores float [n, c] -> float64 [c]."""
    return RankedScores(truth, scores).average_precision()


def class_ap(videos: Videos, *, pooled: bool) -> Callable[[np.ndarray], np.ndarray]:
    """A function of rows of `videos`, int [m] (repeated where drawn more than once), that gives the AP of each class.

    It is float64 [c], of all their frames pooled or the mean over those videos where it is defined.
    """
    if not pooled:
        by_video = np.stack([average_precision(truth, score) for _, truth, score in videos])
        return lambda rows: nanmean(by_video[rows], 0)
    truth, score = (np.concatenate([video[side] for video in videos]) for side in (1, 2))
    ranked = RankedScores(truth, score, np.repeat(np.arange(len(videos)), [len(video[1]) for video in videos]))
    return lambda rows: ranked.average_precision(np.bincount(rows, minlength=len(videos)))
