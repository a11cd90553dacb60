"""Which class is taken for which, as counts that add up over frames, pictures and videos."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from surgdino.metrics.scores import Confusion

NONE = "none of them"


def of_ids(pairs: Iterable[tuple[np.ndarray, np.ndarray]], classes: Sequence[str], title: str) -> Confusion:
    """Of frames that have one class each.

    Args:
        pairs: (truth, prediction) int [n] of each video; frames with an id outside the classes are left out.
        title: what the classes are.
    """
    counts = np.zeros((len(classes), len(classes)), np.int64)
    for truth, prediction in pairs:
        known = (truth >= 0) & (truth < len(classes)) & (prediction >= 0) & (prediction < len(classes))
        np.add.at(counts, (truth[known], prediction[known]), 1)
    return Confusion(title, classes, classes, counts)


def of_highest(pairs: Iterable[tuple[np.ndarray, np.ndarray]], classes: Sequence[str], title: str) -> Confusion:
    """Of frames that may show several classes: those that show one alone, and which class has the highest score there.

    Args:
        pairs: (truth 0/1 [n, C], scores [n, C]) of each video.
    """
    alone = [(truth[truth.sum(1) == 1], scores[truth.sum(1) == 1]) for truth, scores in pairs]
    ids = ((truth.argmax(1), scores.argmax(1)) for truth, scores in alone)
    return of_ids(ids, classes, f"{title}, frames that show one alone")


def of_masks(truth: np.ndarray, prediction: np.ndarray, known: np.ndarray | None = None) -> np.ndarray:
    """int64 [C + 1, C + 1] pixels of one picture: a row a true class, a column a predicted one, last neither of them.

    A pixel of several classes counts for each pair of a true and a predicted one.

    Args:
        truth, prediction: bool [C, H, W].
        known: bool [H, W]; other pixels count for nothing. None: all pixels.
    """
    every = np.ones(truth.shape[1:], bool) if known is None else known
    true, predicted = ([*(each.ravel() for each in side), ~side.any(0).ravel()] for side in (truth, prediction))
    places = [np.flatnonzero(each & every.ravel()) for each in true]
    return np.array([[np.count_nonzero(each[where]) for each in predicted] for where in places], np.int64)
