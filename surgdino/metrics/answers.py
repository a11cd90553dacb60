"""Answers from a list, each of which is one of many classes: accuracy and macro averages, from counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from surgdino.metrics.arrays import nanmean, ratio

HEADLINE = "macro F1"


def macro_numbers(counts: np.ndarray) -> dict[str, float]:
    """Accuracy, and macro averages as scikit-learn's `f1_score` and `balanced_accuracy_score`.

    F1 is averaged over answers that are true or replied, recall over those that are true.

    Args:
        counts: int64 [3, answers], pairs in which each answer is right, replied, true.
    """
    right, replied, true = counts
    return {
        "accuracy": float(ratio(right.sum(), true.sum())),
        HEADLINE: float(nanmean(ratio(2 * right, replied + true))),
        "balanced accuracy": float(nanmean(ratio(right, true))),
    }


def script_numbers(counts: np.ndarray) -> dict[str, float]:
    """As the published code of Surgical-VQA: scikit-learn's macro averages over answers that are true or replied, with
    `zero_division=1`, so that the precision of an answer that is never replied is 1."""
    right, replied, true = counts[:, counts[1:].any(0)]
    of = {"precision": ratio(right, replied), "recall": ratio(right, true)}
    means = {name: float(nanmean(np.where(np.isnan(values), 1.0, values))) for name, values in of.items()}
    return {**means, "F score": macro_numbers(counts)[HEADLINE]}


def macro_f1(true: Sequence[str], replied: Sequence[str]) -> float:
    """The headline of these answers."""
    places = {answer: place for place, answer in enumerate(dict.fromkeys((*true, *replied)))}
    ids = [np.array([places[answer] for answer in side]) for side in (true, replied)]
    sides = (ids[0][ids[0] == ids[1]], ids[1], ids[0])
    return macro_numbers(np.array([np.bincount(each, minlength=len(places)) for each in sides]))[HEADLINE]
