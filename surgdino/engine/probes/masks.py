"""Masks: k-NN and a linear probe on single patch tokens, scored by Dice on the grid of patches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from surgdino.engine.probing.folds import CLASSIFIERS, fitted, folds, knn
from surgdino.engine.probing.frames import MaskLabels, ProbeFrames, even
from surgdino.engine.probing.measures import LABELS, Finding, Measure, Probe
from surgdino.engine.probing.view import View
from surgdino.metrics.arrays import nanmean
from surgdino.metrics.segmentation import image_scores
from surgdino.transfers import host_copy, uploaded

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
        asked: dict[tuple[str, int], tuple[np.ndarray, list[_Asked]]] = {}
        for classifier in CLASSIFIERS:
            for fold, (train, test) in enumerate(folds(view.frames, view.masks.rows)):
                test = test[view.frames.tested[test]]
                trained_on, at = np.isin(view.masks.rows, train), np.flatnonzero(np.isin(view.masks.rows, test))
                channels = [np.flatnonzero(trained_on & known[:, channel]) for channel in range(cover.shape[1])]
                learnt = [_asked(view, classifier, rows, cover[rows, c], at) for c, rows in enumerate(channels)]
                asked[classifier, fold] = at, learnt
        said = host_copy(asked, copy=False)()  # all at once
        for classifier in CLASSIFIERS:
            predicted = np.zeros_like(cover)
            tested = np.zeros(len(known), bool)
            for at, learnt in (said[key] for key in said if key[0] == classifier):
                tested[at] = True
                for channel, each in enumerate(learnt):
                    predicted[at, channel] = _decided(each, (len(at), *view.grid))
            yield from _scored(view, classifier, cover, predicted, known, np.flatnonzero(tested))


_Asked = dict[str, Any]


def _asked(view: View, classifier: str, rows: np.ndarray, cover: np.ndarray, at: np.ndarray) -> _Asked:
    """What is learnt of one class from the pictures at `rows`, and said of those `at`, on the device: `found` [t, 1];
    `known` [m, 1], the same of the training patches, and `covered`, what is true of them. One value where all of them
    have it."""
    if not cover.any() or cover.all():
        return {"value": bool(cover.any())}
    chosen = even(np.arange(cover.size), _TRAINING_PATCHES)
    covered = cover.reshape(-1)[chosen, None].astype(np.float64)
    tokens, test = _tokens(view, rows), _tokens(view, at)
    predict, known = _learnt(classifier, tokens[uploaded(chosen, tokens.device)], covered)
    # Part by part: k-NN compares every patch with every training patch.
    found = torch.cat([predict(part) for part in test.split(_TESTED_AT_ONCE)])
    return {"found": found, "known": known, "covered": covered}


def _decided(said: _Asked, shape: tuple[int, ...]) -> np.ndarray:
    """bool [pictures, rows, columns]."""
    if "value" in said:
        return np.full(shape, said["value"])
    return ((said["found"].numpy() - _thresholds(said["known"], said["covered"]))[:, 0] > 0).reshape(shape)


def patch_logits(classifier: str, train: Tensor, covered: np.ndarray) -> Callable[[Tensor], np.ndarray]:
    """What tells single patches of some classes by their tokens: [t, D] -> float [t, c], above 0 is the class.

    Args:
        classifier: `linear`, whose thresholds are those with the best Dice in training, or `knn`.
        train: [m, D].
        covered: 0/1 float64 [m, c].
    """
    predict, known = _learnt(classifier, train, covered)
    thresholds = _thresholds(None if known is None else known.cpu(), covered)
    return lambda test: predict(test).cpu().numpy() - thresholds


def _learnt(classifier: str, train: Tensor, covered: np.ndarray) -> tuple[Callable[[Tensor], Tensor], Tensor | None]:
    """What scores patches, and what the linear one says of the training patches."""
    if classifier == "knn":
        return lambda test: knn(train, covered, test), None
    predict = fitted(train, covered)
    return predict, predict(train)


def _thresholds(known: Tensor | None, covered: np.ndarray) -> np.ndarray | float:
    """[c], by `best_threshold`; a half where nothing is said of the training patches."""
    if known is None:
        return 0.5
    return np.array([best_threshold(known[:, c].numpy(), covered[:, c] > 0) for c in range(covered.shape[1])])


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
