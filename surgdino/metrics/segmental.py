"""Segmental phase metrics: the order of phases (edit score), their extent (F1@k), and transitions that cannot be.

Edit score and F1@k after Lea et al. 2017 (arXiv 1611.05267), matched as in MS-TCN's evaluation (arXiv 1903.01945).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from surgdino.errors import SurgdinoError
from surgdino.metrics.arrays import label_sequences, nanmean, nanstd

# Ids in Cholec80's order. Packaging (4) and coagulation (5) may alternate, retraction (6) may go back to coagulation.
CHOLECYSTECTOMY_TRANSITIONS: dict[int, frozenset[int]] = {
    0: frozenset({1}),
    1: frozenset({2}),
    2: frozenset({3}),
    3: frozenset({4, 5}),
    4: frozenset({5, 6}),
    5: frozenset({4, 6}),
    6: frozenset({5}),
}


@dataclass(frozen=True)
class Segments:
    """Runs of equal labels: `start` inclusive, `end` exclusive, `label`; each int64 [s]."""

    start: np.ndarray
    end: np.ndarray
    label: np.ndarray

    def __len__(self) -> int:
        return len(self.label)


@dataclass(frozen=True)
class SegmentalScores:
    """Segmental metrics over all videos.

    Attributes:
        protocol: `phase/segmental`.
        scores: `edit` (mean over videos), `f1@10` ... (segments pooled over videos).
        spread: the sample standard deviation over videos of `edit`.
        forbidden_transitions: how many predicted transitions are not allowed; -1 where no transitions were given.
        per_video: video -> edit, f1@k, and the number of predicted segments and (if asked) forbidden transitions.
    """

    protocol: str
    scores: dict[str, float]
    spread: dict[str, float]
    forbidden_transitions: int
    per_video: dict[str, dict[str, float]]


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


def forbidden_transitions(labels: np.ndarray, allowed: Mapping[int, frozenset[int]]) -> int:
    """How many changes of phase in int [n] are not allowed."""
    runs = segments(labels).label.tolist()
    return sum(after not in allowed.get(before, ()) for before, after in pairwise(runs))


def score_segments(
    truths: Mapping[str, np.ndarray],
    predictions: Mapping[str, np.ndarray],
    phases: int,
    *,
    thresholds: Sequence[float] = (0.10, 0.25, 0.50),
    transitions: Mapping[int, frozenset[int]] | None = None,
) -> SegmentalScores:
    """Edit score averaged over videos, F1@k with segments pooled over videos.

    Args:
        truths, predictions: video id -> int [n], phase ids in 0..phases-1.
        thresholds: IoU thresholds in (0, 1].
        transitions: the allowed ones, e.g. CHOLECYSTECTOMY_TRANSITIONS; None counts none.

    Raises:
        SurgdinoError: videos, lengths, ids or thresholds that do not fit.
    """
    if not all(0 < threshold <= 1 for threshold in thresholds):
        raise SurgdinoError("an IoU threshold is out of range", expected="in (0, 1]", found=list(thresholds))
    names = [f"f1@{round(100 * threshold)}" for threshold in thresholds]
    per_video: dict[str, dict[str, float]] = {}
    matches = np.zeros((len(thresholds), 3), dtype=np.int64)
    for video, truth, prediction in label_sequences(truths, predictions, phases):
        found = np.stack([matched_segments(truth, prediction, threshold) for threshold in thresholds])
        matches += found
        per_video[video] = {"edit": edit_score(truth, prediction)}
        per_video[video] |= {name: f1_of(row) for name, row in zip(names, found, strict=True)}
        per_video[video]["segments"] = len(segments(prediction))
        if transitions is not None:
            per_video[video]["forbidden_transitions"] = forbidden_transitions(prediction, transitions)
    edit = np.array([row["edit"] for row in per_video.values()])
    return SegmentalScores(
        protocol="phase/segmental",
        scores={"edit": float(nanmean(edit)), **{n: f1_of(row) for n, row in zip(names, matches, strict=True)}},
        spread={"edit": nanstd(edit)},
        forbidden_transitions=-1
        if transitions is None
        else sum(int(r["forbidden_transitions"]) for r in per_video.values()),
        per_video=per_video,
    )
