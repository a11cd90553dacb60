"""What an evaluation finds of one backbone: numbers over operations, and how sure each is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from surgdino.metrics.arrays import nanmean
from surgdino.metrics.average_precision import average_precision
from surgdino.metrics.phase import accuracies
from surgdino.metrics.scores import Statistic
from surgdino.wording import counted

Better = Literal["higher", "lower"]


@dataclass(frozen=True)
class Outcome:
    """One number.

    Attributes:
        name: in words, as tables show it.
        value: over operations; NaN where it could not be measured.
        per_operation: operation -> the same of this operation alone; empty where it is a number of all of them only.
        better: which way; None where it only describes the features.
        percent: whether it is a share in [0, 1].
        without: operation -> the number without it, of numbers that are no means over operations; else empty.
        curve: (the measure, how many labelled operations taught it), of a point of a curve.
    """

    name: str
    value: float
    per_operation: Mapping[str, float] = field(default_factory=dict)
    better: Better | None = "higher"
    percent: bool = True
    without: Mapping[str, float] = field(default_factory=dict)
    curve: tuple[str, int] | None = None

    @classmethod
    def mean(
        cls, name: str, per_operation: Mapping[str, float], better: Better | None = "higher", percent: bool = True
    ) -> Outcome:
        """The mean over operations; those whose value is undefined do not count."""
        return cls(name, float(nanmean(np.array(list(per_operation.values())))), dict(per_operation), better, percent)

    def called(self, name: str) -> Outcome:
        """The same under another name."""
        return replace(self, name=name)

    @classmethod
    def of_curve(cls, measure: str, per_operation: Mapping[str, float], taught: int) -> Outcome:
        """The mean over operations of a measure that `taught` labelled operations taught."""
        name = f"{measure}, taught by {counted(taught, 'operation')}"
        return replace(cls.mean(name, per_operation), curve=(measure, taught))


def merit(truth: np.ndarray, scores: np.ndarray) -> float:
    """Of some frames, over the classes that they have: balanced accuracy, or the mean average precision.

    Args:
        truth: class ids int [n], or bool [n, classes] where a frame may have many.
        scores: [n, classes].
    """
    if truth.ndim > 1:
        return float(nanmean(average_precision(truth, scores)))
    return accuracies(truth, scores.argmax(1), scores.shape[1])[1]


def pooled(
    statistic: Statistic, owners: Sequence[str], better: Better = "higher", percent: bool = True
) -> Iterator[Outcome]:
    """Numbers that are no means over operations, such as those of all pixels together.

    Args:
        statistic: row numbers int [m] -> name -> value.
        owners: the operation of each row.
    """
    owner = np.asarray(owners)
    rows = {str(name): np.flatnonzero(owner == name) for name in np.unique(owner)}
    alone = {operation: statistic(at) for operation, at in rows.items()}
    others = {operation: np.flatnonzero(owner != operation) for operation in rows}
    without = {
        operation: statistic(at) if len(at) else dict.fromkeys(alone[operation], np.nan)
        for operation, at in others.items()
    }
    for name, value in statistic(np.arange(len(owner))).items():
        each, left = ({op: float(found[name]) for op, found in by.items()} for by in (alone, without))
        yield Outcome(name, float(value), each, better, percent, left)
