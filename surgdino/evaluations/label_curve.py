"""Labels saved: frames classified by what one, two, four or all other operations taught, over choices of them"""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from surgdino.config import Names, PositiveInt, Seed
from surgdino.engine.probing.folds import NEIGHBOURS, as_targets, knn_scores
from surgdino.evaluations.parts.evaluation import Evaluation
from surgdino.evaluations.parts.given import Given
from surgdino.evaluations.parts.outcome import Outcome, merit
from surgdino.metrics.arrays import nanmean

_ITERATIONS = 300  # at most: of many frames a fit is stopped there, for every backbone alike


@dataclass(frozen=True)
class LabelCurveSettings:
    """Who teaches.

    Attributes:
        labels: kinds that it is tried with, each by itself.
        operations: how many of the others teach; all of them always come last.
        choices: of them, averaged operation by operation. Where there are no more than so many, each counts once.
        seed: of the choices where there are more.
        penalty: inverse, of the logistic regression; it is fixed, so that nothing is chosen on few labels.
    """

    labels: Names
    operations: Annotated[tuple[PositiveInt, ...], Field(max_length=20)]
    choices: Annotated[int, Field(ge=1, le=1000)]
    seed: Seed
    penalty: Annotated[float, Field(ge=1e-6, le=1e6)]


class LabelCurve(Evaluation[LabelCurveSettings]):
    """Balanced accuracy where a frame has one class, mean average precision where it may have many: of a logistic
    regression and of the 20 nearest frames by cosine, each with one vote, on class and mean patch tokens, standardised
    by the frames that teach.

    An operation never teaches what it is tested by. A class that nobody taught is never found.
    """

    Settings = LabelCurveSettings

    def labels(self) -> tuple[str, ...]:
        return self.settings.labels

    def outcomes(self, given: Given) -> Iterator[Outcome]:
        tokens, values = given.tokens("class+mean").cpu().numpy(), given.values
        folds, most = list(given.folds()), given.training_operations
        for count in [*sorted({each for each in self.settings.operations if each < most}), most]:
            found: dict[str, dict[str, list[float]]] = {}
            for train, test in folds:
                owners = given.operations[train]
                for chosen in self._choices(np.unique(owners).tolist(), count):
                    taught = train[np.isin(owners, chosen)]
                    for name, scores in self._scores(tokens, values, taught, test, len(given.classes)):
                        for operation, rows in given.of_operations(test).items():
                            value = merit(values[rows], scores[np.searchsorted(test, rows)])
                            found.setdefault(name, {}).setdefault(operation, []).append(value)
            for name, each in found.items():
                per_operation = {operation: float(nanmean(np.array(tried))) for operation, tried in each.items()}
                yield Outcome.of_curve(name, per_operation, count)

    def _choices(self, names: Sequence[str], count: int) -> list[tuple[str, ...]]:
        """Which operations teach: every choice of `count`, or so many different ones as the settings say."""
        if math.comb(len(names), count) <= self.settings.choices:
            return list(combinations(names, count))
        rng, chosen = random.Random(f"{self.settings.seed} {count}"), dict[tuple[str, ...], None]()
        while len(chosen) < self.settings.choices:
            chosen[tuple(sorted(rng.sample(names, count)))] = None
        return list(chosen)

    def _scores(
        self, tokens: np.ndarray, values: np.ndarray, taught: np.ndarray, test: np.ndarray, classes: int
    ) -> Iterator[tuple[str, np.ndarray]]:
        """(measure in words, [len(test), classes]) of each classifier."""
        scaler, y = StandardScaler().fit(tokens[taught]), values[taught]
        x, z = scaler.transform(tokens[taught]), scaler.transform(tokens[test])
        measure = "balanced accuracy" if y.ndim == 1 else "mean average precision"
        targets, _ = as_targets(y, classes)  # each neighbour has one vote
        yield f"{measure}, logistic regression", logistic_scores(x, y, z, classes, self.settings.penalty)
        shares = knn_scores(torch.from_numpy(x), targets, torch.from_numpy(z), temperature=math.inf)
        yield f"{measure}, 20-NN", np.round(shares * min(NEIGHBOURS, len(x)))  # whole votes: ties are ties


def logistic_scores(x: np.ndarray, y: np.ndarray, z: np.ndarray, classes: int, penalty: float) -> np.ndarray:
    """Logistic regression: [m, D], class ids [m] or 0/1 [m, classes], and [t, D] -> [t, classes].

    Where a frame has one class, every class counts the same; where it may have many, each is learnt by itself.

    Args:
        penalty: inverse (scikit-learn's C).
    """
    scores = np.zeros((len(z), classes))
    if y.ndim == 1 and len(np.unique(y)) == 1:
        scores[:, y[0]] = 1
    elif y.ndim == 1:
        fitted = fit_logistic(x, y, penalty, class_weight="balanced")
        scores[:, fitted.classes_] = fitted.predict_proba(z)
    else:
        for k in np.flatnonzero((y.min(0) == 0) & (y.max(0) == 1)):
            scores[:, k] = fit_logistic(x, y[:, k], penalty).decision_function(z)
    return scores


def fit_logistic(x: np.ndarray, y: np.ndarray, penalty: float, **options: str) -> LogisticRegression:
    """Logistic regression of class ids [m], stopped after 300 steps; `penalty` is inverse, `options` scikit-learn's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(C=penalty, max_iter=_ITERATIONS, **options).fit(x, y)
