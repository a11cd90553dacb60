"""Labels saved: frames classified by what one, two, four or all other operations taught, over choices of them"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from sklearn.preprocessing import StandardScaler

from surgdino.config import Names, PositiveInt, Seed
from surgdino.engine.probing.folds import NEIGHBOURS, as_targets, knn_scores
from surgdino.evaluations.parts.evaluation import Evaluation
from surgdino.evaluations.parts.given import Given
from surgdino.evaluations.parts.logistic import logistic_scores
from surgdino.evaluations.parts.outcome import Outcome, merit
from surgdino.metrics.arrays import nanmean


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
