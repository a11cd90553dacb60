"""Whole frames classified by k-NN or a linear probe: phases, tools, triplets, with all operations or few of them"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from surgdino.config import Names
from surgdino.engine.probing.folds import CLASSIFIERS, fold_scores
from surgdino.errors import SurgdinoError
from surgdino.evaluations.parts.attentive import Attention, fit_attentive
from surgdino.evaluations.parts.evaluation import Evaluation, Reading
from surgdino.evaluations.parts.given import Fold, Given, operations_at
from surgdino.evaluations.parts.outcome import Better, Outcome, merit
from surgdino.metrics.arrays import nanmean
from surgdino.metrics.calibration import expected_calibration_error
from surgdino.metrics.phase import accuracies
from surgdino.tasks.features.cache import FeatureCache

ShareOfOperations = Annotated[float, Field(gt=0, le=1)]


@dataclass(frozen=True)
class ClassificationSettings:
    """How frames are classified.

    Attributes:
        classifier: `knn` (20 neighbours weighted by exp(cosine / 0.07)), or `linear` (ridge regression onto 0 and 1).
        tokens: what of a frame it is given; `attentive`: class token and patches, which a query learns to pool.
        labels: kinds that it is tried with, each by itself.
        shares: of the training operations that it learns from.
        seeds: choices of them where the share is below 1, averaged operation by operation.
        attention: how `tokens: attentive` is fitted, by steps and not in closed form.
    """

    classifier: Literal["knn", "linear"]
    tokens: Literal["class", "class+mean", "attentive"]
    labels: Names
    shares: Annotated[tuple[ShareOfOperations, ...], Field(min_length=1, max_length=20)]
    seeds: Annotated[int, Field(ge=1, le=100)]
    attention: Attention | None = None

    def __post_init__(self) -> None:
        attentive = self.tokens == "attentive"
        if attentive and self.classifier == "knn":
            raise SurgdinoError("tokens=attentive learns", place="classifier", expected="linear", found="knn")
        if attentive is not (self.attention is not None):
            expected = "{heads, steps, batch, lr} with tokens: attentive" + ("" if attentive else " alone")
            found = "none" if attentive else f"tokens: {self.tokens}"
            raise SurgdinoError("attention cannot be used", place="attention", expected=expected, found=found)


class Classification(Evaluation[ClassificationSettings]):
    """Balanced accuracy and accuracy where a frame has one class, mean average precision where it may have many.

    An operation's value is of its own frames and of the classes that it has.
    """

    Settings = ClassificationSettings

    def labels(self) -> tuple[str, ...]:
        return self.settings.labels

    def reads(self, features: FeatureCache) -> list[Reading]:
        return [Reading(features, (features.backbone.depth - 1,) if self.settings.attention else ())]

    def outcomes(self, given: Given) -> Iterator[Outcome]:
        values, scores_of, counts = given.values, self._classifier(given), set[int]()
        for share in sorted(self.settings.shares):
            count = operations_at(share, given.training_operations)
            if count in counts:
                continue  # as many operations as a smaller share
            counts.add(count)
            whole = count == given.training_operations
            found: dict[str, list[dict[str, float]]] = {}
            for seed in range(1 if whole else self.settings.seeds):
                scores = scores_of(given.folds(1.0 if whole else share, seed))
                for name, per_operation in self._measures(given, values, scores).items():
                    found.setdefault(name, []).append(per_operation)
            for place, (name, runs) in enumerate(found.items()):
                per_operation = {op: float(nanmean(np.array([run[op] for run in runs]))) for op in runs[0]}
                better: Better = "lower" if name.startswith("calibration") else "higher"
                if whole:
                    yield Outcome.mean(name, per_operation, better)
                elif not place:  # of few labels one number is enough
                    many = "s" if count > 1 else ""
                    of = f", {100 * share:g} % of operations ({count} operation{many})"
                    yield Outcome.mean(name + of, per_operation, better)

    def _classifier(self, given: Given) -> Callable[[Iterator[Fold]], np.ndarray]:
        """A function of folds that gives the scores [n, classes] of all that they test; NaN elsewhere."""
        attention, values, classes = self.settings.attention, given.values, len(given.classes)
        if attention is None:
            tokens, classifier = given.tokens(self.settings.tokens), CLASSIFIERS[self.settings.classifier]
            return lambda pairs: fold_scores(classifier, tokens, values, classes, pairs)
        cls, patches = given.tokens(), given.patches()

        def attentive(pairs: Iterator[Fold]) -> np.ndarray:
            scores = np.full((len(values), classes), np.nan)
            for train, test in pairs:
                scores[test] = fit_attentive(cls, patches, values, train, classes, attention)(test)
            return scores

        return attentive

    def _measures(self, given: Given, values: np.ndarray, scores: np.ndarray) -> dict[str, dict[str, float]]:
        """Name -> operation -> value, the first being the one that counts."""
        rows = given.of_operations(np.flatnonzero(~np.isnan(scores[:, 0])))
        if values.ndim > 1:
            return {"mean average precision": {op: merit(values[at], scores[at]) for op, at in rows.items()}}
        both = {op: accuracies(values[at], scores[at].argmax(1), scores.shape[1]) for op, at in rows.items()}
        found = {"balanced accuracy": {op: balanced for op, (_, balanced) in both.items()}}
        found["accuracy"] = {op: accuracy for op, (accuracy, _) in both.items()}
        if self.settings.classifier == "knn":  # whose scores are probabilities
            errors = {op: expected_calibration_error(scores[at], values[at]) for op, at in rows.items()}
            found["calibration error (ECE)"] = errors
        return found
