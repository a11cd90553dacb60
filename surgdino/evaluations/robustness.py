"""Endoscopic corruptions at five severities: what is left of features, and of a probe that learnt on clean frames"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import AfterValidator, Field
from torch import Tensor

from surgdino.config import Names
from surgdino.engine.probing.folds import as_targets, fit_linear
from surgdino.errors import SurgdinoError
from surgdino.evaluations.parts.corruptions import SEVERITIES, corrupted_tokens, corruption_named
from surgdino.evaluations.parts.evaluation import Evaluation
from surgdino.evaluations.parts.given import Given
from surgdino.evaluations.parts.outcome import Outcome, merit, pooled
from surgdino.metrics.arrays import nanmean
from surgdino.tasks.features.cache import FeatureCache


def _known(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        corruption_named(name)
    return names


@dataclass(frozen=True)
class RobustnessSettings:
    """What is made worse.

    Attributes:
        labels: kinds that a linear probe learns on clean frames, each by itself; none measures the features alone.
        frames: at most so many are corrupted, evenly over the tested operations.
        corruptions: by name.
    """

    labels: Names
    frames: Annotated[int, Field(ge=4, le=10**5)]
    corruptions: Annotated[Names, Field(min_length=1, max_length=50), AfterValidator(_known)]


Errors = dict[tuple[str, int], dict[str, float]]  # (corruption, severity) -> operation -> error; severity 0 is clean


class Robustness(Evaluation[RobustnessSettings]):
    """With labels: the error (1 - balanced accuracy, or 1 - mean average precision) under each corruption, the mean
    over severities; and the mean corruption error, that of Hendrycks and Dietterich 2019 with the first backbone in the
    place of AlexNet. Without: how alike a corrupted frame's class token is to the clean one's, beyond how alike any
    two frames are, and how often the clean frame is its nearest.
    """

    Settings = RobustnessSettings
    compares: ClassVar = True

    def labels(self) -> tuple[str | None, ...]:
        return self.settings.labels or (None,)

    def outcomes(self, given: Given) -> Iterator[Outcome]:
        rows = given.sample(self.settings.frames)
        if given.frames.labels is None:
            yield from self._of_features(given, rows)
            return
        own, first = (self._errors(given, cache, rows) for cache in (given.features, given.first))
        yield Outcome.mean("error, clean", own["", 0], "lower")
        for name in self.settings.corruptions:
            yield Outcome.mean(f"error, {name.replace('_', ' ')}", _over_severities(own, name), "lower")
        operations = sorted(own["", 0])

        def against_first(chosen: np.ndarray) -> Mapping[str, float]:
            ratios = []
            for name in self.settings.corruptions:
                sums = [_total(errors, name, [operations[i] for i in chosen]) for errors in (own, first)]
                ratios.append(sums[0] / sums[1] if sums[1] else np.nan)
            return {"mean corruption error (the first: 1)": float(nanmean(np.array(ratios)))}

        yield from pooled(against_first, operations, "lower", percent=False)

    def _errors(self, given: Given, cache: FeatureCache, rows: np.ndarray) -> Errors:
        """Of a probe of one backbone on the frames `rows`, clean and corrupted."""
        clean, values = given.tokens(cache=cache), given.values
        probes = list(_probes(given, clean, values, rows))
        places = given.of_operations(rows)

        def errors(tokens: Tensor) -> dict[str, float]:
            scores = np.full((len(clean), len(given.classes)), np.nan)
            for predict, test in probes:
                scores[rows[test]] = predict(tokens[test])
            return {op: 1 - merit(values[at], scores[at]) for op, at in places.items() if len(at)}

        found = {("", 0): errors(clean[rows])}
        for name, severity, tokens in self._corrupted(given, cache, rows):
            found[name, severity] = errors(tokens)
        return found

    def _corrupted(self, given: Given, cache: FeatureCache, rows: np.ndarray) -> Iterator[tuple[str, int, Tensor]]:
        store, index = given.frames.store, given.frames.index[rows]
        for name in self.settings.corruptions:
            for severity in range(1, SEVERITIES + 1):
                yield name, severity, corrupted_tokens(cache, store, index, name, severity)

    def _of_features(self, given: Given, rows: np.ndarray) -> Iterator[Outcome]:
        clean = F.normalize(given.tokens()[rows], dim=-1)
        if len(rows) < 2:
            raise SurgdinoError("a frame alone cannot be told from others", expected="at least two", found=len(rows))
        count = len(clean)
        between = float(((clean @ clean.T).sum() - count) / (count * (count - 1)))
        alike: dict[str, list[np.ndarray]] = {}
        nearest: list[np.ndarray] = []
        for name, _, tokens in self._corrupted(given, given.features, rows):
            cosines = F.normalize(tokens, dim=-1) @ clean.T
            alike.setdefault(name, []).append(cosines.diagonal().cpu().numpy() - between)
            nearest.append((cosines.argmax(1) == torch.arange(count, device=cosines.device)).cpu().numpy())
        for name, values in alike.items():
            each = given.by_operation(rows, np.mean(values, 0))
            yield Outcome.mean(f"likeness to the clean frame, {name.replace('_', ' ')}", each, percent=False)
        yield Outcome.mean("clean frame is the nearest", given.by_operation(rows, np.mean(nearest, 0)), percent=False)


def _probes(
    given: Given, clean: Tensor, values: np.ndarray, rows: np.ndarray
) -> Iterator[tuple[Callable[[Tensor], np.ndarray], np.ndarray]]:
    """(a probe, places in `rows` that it tests) of each fold; learnt on clean frames."""
    for train, test in given.folds():
        predict = fit_linear(clean[train], *as_targets(values[train], len(given.classes)))
        yield predict, np.flatnonzero(np.isin(rows, test))


def _over_severities(errors: Errors, name: str) -> dict[str, float]:
    return {
        op: float(nanmean(np.array([errors[name, s][op] for s in range(1, SEVERITIES + 1)]))) for op in errors["", 0]
    }


def _total(errors: Errors, name: str, operations: list[str]) -> float:
    """The sum over severities of the mean error of some operations."""
    return sum(float(nanmean(np.array([errors[name, s][op] for op in operations]))) for s in range(1, SEVERITIES + 1))
