"""Segmental phase metrics: the order of phases (edit score) and their extent (F1@k).

Edit score and F1@k after Lea et al. 2017 (arXiv 1611.05267), matched as in MS-TCN's evaluation (arXiv 1903.01945).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from surgdino.metrics.arrays import label_sequences

THRESHOLDS = (0.10, 0.25, 0.50)  # of the IoU


@dataclass(frozen=True)
class Segments:
    """Runs of equal labels: `start` inclusive, `end` exclusive, `label`; each int64 [s]."""

    start: np.ndarray
    end: np.ndarray
    label: np.ndarray

    def __len__(self) -> int:
        return len(self.label)


def segments(labels: np.ndarray) -> Segments:
    """The runs of equal labels in int [n], n > 0."""
    changes = np.flatnonzero(np.diff(labels)) + 1
    start = np.concatenate([[0], changes])
    end = np.concatenate([changes, [len(labels)]])
    return Segments(start, end, np.asarray(labels)[start])


def edit_distance(first: np.ndarray, second: np.ndarray) -> int:
    """Levenshtein distance of two label sequences, each edit at cost 1."""
    short, long = sorted((np.asarray(first), np.asarray(second)), key=len)
    steps = np.arange(len(long) + 1)
    row = steps.copy()
    for label in short:
        replaced = row[:-1] + (long != label)
        best = np.concatenate([[row[0] + 1], np.minimum(replaced, row[1:] + 1)])
        # An insertion continues the same row: row[j] = min over i <= j of best[i] + (j - i).
        row = np.minimum.accumulate(best - steps) + steps
    return int(row[-1])


def edit_score(truth: np.ndarray, prediction: np.ndarray) -> float:
    """1 - Levenshtein distance of the two sequences of segments / the longer one's length; both int [n], n > 0."""
    first, second = segments(truth), segments(prediction)
    return 1 - edit_distance(first.label, second.label) / max(len(first), len(second))


def matched_segments(truth: np.ndarray, prediction: np.ndarray, threshold: float) -> np.ndarray:
    """int64 [3]: true positive, false positive and false negative segments of one video.

    Each predicted segment, in order, takes the true segment of its phase with which its IoU is highest; it is a true
    positive if that IoU reaches the threshold and the segment is still free.
    """
    true, predicted = segments(truth), segments(prediction)
    taken = np.zeros(len(true), dtype=bool)
    for start, end, label in zip(predicted.start, predicted.end, predicted.label, strict=True):
        overlap = np.minimum(end, true.end) - np.maximum(start, true.start)
        extent = np.maximum(end, true.end) - np.minimum(start, true.start)
        iou = np.where((overlap > 0) & (true.label == label), overlap / extent, 0.0)
        best = int(iou.argmax())
        if iou[best] >= threshold:
            taken[best] = True
    hits = int(taken.sum())
    return np.array([hits, len(predicted) - hits, len(true) - hits])


def f1_of(matches: np.ndarray) -> float:
    """2 TP / (2 TP + FP + FN) of int [3]."""
    hit, extra, missed = matches
    return float(2 * hit / (2 * hit + extra + missed))


def match_videos(
    truths: Mapping[str, np.ndarray], predictions: Mapping[str, np.ndarray], phases: int
) -> tuple[np.ndarray, np.ndarray]:
    """Edit score float64 [V] and `matched_segments` int64 [V, T, 3] of each video, at T thresholds.

    Args:
        truths, predictions: video id -> int [n], phase ids in 0..phases-1.

    Raises:
        SurgdinoError: videos, lengths or ids that do not fit.
    """
    pairs = [(truth, prediction) for _, truth, prediction in label_sequences(truths, predictions, phases)]
    matches = [[matched_segments(truth, prediction, t) for t in THRESHOLDS] for truth, prediction in pairs]
    return np.array([edit_score(truth, prediction) for truth, prediction in pairs]), np.array(matches)


def segmental_scores(edit: np.ndarray, matches: np.ndarray) -> dict[str, float]:
    """`edit`, the mean over videos, and `f1@10`, ..., with the segments of all videos pooled."""
    f1 = {f"f1@{round(100 * t)}": f1_of(row) for t, row in zip(THRESHOLDS, matches.sum(0), strict=True)}
    return {"edit": float(edit.mean()), **f1}
