"""Masks: k-NN and a linear probe on single patch tokens, scored by Dice on the grid of patches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import ClassVar

import numpy as np
from torch import Tensor

from surgdino.engine.probing.folds import CLASSIFIERS, fit_linear, folds, knn_scores
from surgdino.engine.probing.frames import MaskLabels, ProbeFrames, even
from surgdino.engine.probing.measures import LABELS, Finding, Measure, Probe
from surgdino.engine.probing.view import View
from surgdino.metrics.arrays import nanmean
from surgdino.metrics.segmentation import image_scores

# Training patches of a class: more cost time and change little, since neighbouring patches are alike.
_TRAINING_PATCHES, _TESTED_AT_ONCE = 8192, 4096


class Masks(Probe):
    """k-NN and a linear probe, scored by Dice."""

    order = 12
    measures: ClassVar = {
        "_linear_dice": Measure("{task}, linear probe on patches (Dice)", chooses=LABELS),
        "_knn_dice": Measure("{task}, k-NN on patches (Dice)"),
    }

    def dense(self, frames: ProbeFrames, masks: MaskLabels | None) -> np.ndarray:
        """All frames that have masks."""
        return np.empty(0, np.int64) if masks is None else np.sort(masks.rows)

    def find(self, view: View) -> Iterator[Finding]:
        """Per operation: the mean Dice of its pictures over the classes that are known of them.

        A patch shows a class where the mask covers more than half of it. Both masks empty is undefined and left out.
        """
        if view.masks is None:
            return
        cover, known = view.masks.cover(view.grid)
        for classifier in CLASSIFIERS:
            predicted = np.zeros_like(cover)
            tested = np.zeros(len(known), bool)
            for train, test in folds(view.frames, view.masks.rows):
                test = test[view.frames.tested[test]]
                trained_on, at = np.isin(view.masks.rows, train), np.flatnonzero(np.isin(view.masks.rows, test))
                tested[at] = True
                for channel in range(cover.shape[1]):
                    rows = np.flatnonzero(trained_on & known[:, channel])
                    predicted[at, channel] = _predict(view, classifier, rows, cover[rows, channel], at)
            yield from _scored(view, classifier, cover, predicted, known, np.flatnonzero(tested))


def _predict(view: View, classifier: str, rows: np.ndarray, cover: np.ndarray, at: np.ndarray) -> np.ndarray:
    """One class of the pictures `at`, learnt from those at `rows`: bool [len(at), rows, columns] of the grid."""
    if not cover.any() or cover.all():
        return np.full((len(at), *view.grid), bool(cover.any()))
    chosen = even(np.arange(cover.size), _TRAINING_PATCHES)
    targets = cover.reshape(-1)[chosen, None].astype(np.float64)
    train, test = _tokens(view, rows)[chosen], _tokens(view, at)
    # Part by part: k-NN compares every patch with every training patch.
    logits = patch_logits(classifier, train, targets)
    return np.concatenate([logits(part)[:, 0] > 0 for part in test.split(_TESTED_AT_ONCE)]).reshape(len(at), *view.grid)


def patch_logits(classifier: str, train: Tensor, covered: np.ndarray) -> Callable[[Tensor], np.ndarray]:
    """What tells single patches of some classes by their tokens: [t, D] -> float [t, c], above 0 is the class.

    Args:
        classifier: `linear`, whose thresholds are those with the best Dice in training, or `knn`.
        train: [m, D].
        covered: 0/1 float64 [m, c].
    """
    if classifier == "knn":
        return lambda test: knn_scores(train, covered, test) - 0.5
    predict = fit_linear(train, covered)
    known = predict(train)
    thresholds = [best_threshold(known[:, c], covered[:, c] > 0) for c in range(covered.shape[1])]
    return lambda test: predict(test) - thresholds


def best_threshold(scores: np.ndarray, truth: np.ndarray) -> float:
    """The score above which all patches together have the largest Dice.

    Regression onto 0 and 1 stays well below 0.5 where a class is rare: on Kvasir-SEG that is a Dice of 0.16, this 0.61.
    """
    order = np.argsort(-scores)
    hits = np.cumsum(truth[order])
    dice = 2 * hits / (np.arange(1, len(order) + 1) + truth.sum())
    last = int(dice.argmax())
    following = scores[order[min(last + 1, len(order) - 1)]]
    return float((scores[order[last]] + following) / 2)


def _tokens(view: View, places: np.ndarray) -> Tensor:
    assert view.masks is not None
    return view.features.patches_of(view.masks.rows[places]).flatten(0, 1).float()


def _scored(
    view: View, classifier: str, cover: np.ndarray, predicted: np.ndarray, known: np.ndarray, tested: np.ndarray
) -> Iterator[Finding]:
    assert view.masks is not None
    dice = np.full(known.shape, np.nan)
    for place in tested:
        scores = image_scores(cover[place], predicted[place], labelled=known[place], hd95=False)
        dice[place] = scores.dice
    rows = view.masks.rows[tested]
    values = {op: float(nanmean(dice[np.isin(view.masks.rows, at)])) for op, at in view.frames.of(rows).items()}
    if values:
        yield Finding.over(f"masks_{classifier}_dice", values, len(rows))
