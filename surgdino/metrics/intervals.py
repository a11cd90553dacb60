"""How sure a figure is: all here resamples whole operations, because frames of one operation are not independent.

Percentile bootstrap (Efron 1979). With few operations such an interval is too narrow; `n` stands beside it for that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from surgdino.errors import SurgdinoError
from surgdino.metrics.arrays import nanmean, nanstd

LEVEL, RESAMPLES = 0.95, 2000


@dataclass(frozen=True)
class Interval:
    """A figure, its spread and its bootstrap interval over operations.

    Attributes:
        value: the figure on the operations as they are (for per-operation values their mean).
        std: the sample standard deviation over operations; NaN for pooled statistics and below two operations.
        low, high: the interval's ends; NaN below two operations.
        n: operations behind the figure.
        left_out: operations whose value is undefined.
        undefined_resamples: resamples on which the figure does not exist, left out of the percentiles.
    """

    value: float
    std: float
    low: float
    high: float
    n: int
    left_out: int
    undefined_resamples: int


@dataclass(frozen=True)
class PairedDifference:
    """Two systems on the same operations: first - second.

    Attributes:
        difference: of the operations' differences; its interval excludes 0 where the gain is more than chance.
        wins, losses: operations in which the first is better, worse (as a larger value).
    """

    difference: Interval
    wins: int
    losses: int


def operations_of(videos: Iterable[str], operations: Mapping[str, str] | None) -> list[str]:
    """The operation of each video; without a mapping every video is its own.

    Raises:
        SurgdinoError: a video belongs to no operation.
    """
    if operations is None:
        return list(videos)
    lost = [video for video in videos if video not in operations]
    if lost:
        raise SurgdinoError("a video belongs to no operation", place=lost[0], expected="an operation id", found="none")
    return [operations[video] for video in videos]


def mean_interval(values: Mapping[str, float], *, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """Mean ± standard deviation over operations, with the bootstrap interval of the mean.

    Args:
        values: operation id -> value; NaN is left out and counted. The order of the operations does not matter.
        resamples, seed: of the bootstrap; equal ones give equal ends.

    Raises:
        SurgdinoError: no operations, an infinite value, no resamples.
    """
    _check(len(values), resamples)
    infinite = [operation for operation, value in values.items() if math.isinf(value)]
    if infinite:
        raise SurgdinoError("a value is infinite", place=infinite[0], expected="a number or NaN", found="infinity")
    every = np.array([values[operation] for operation in sorted(values)], dtype=np.float64)
    defined = every[~np.isnan(every)]
    drawn = defined[_draws(defined.size, resamples, seed)].mean(1) if defined.size > 1 else np.empty(0)
    return Interval(
        value=float(nanmean(every)),
        std=nanstd(every),
        **_ends(drawn),
        n=int(defined.size),
        left_out=int(every.size - defined.size),
    )


def bootstrap(
    statistic: Callable[[np.ndarray], Mapping[str, float]],
    operations: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Interval]:
    """Intervals of statistics that are no means of per-operation values, such as pooled ones.

    Args:
        statistic: row numbers int [m] (repeated where drawn more than once) -> name -> value. First called with
            every row once, then once a resample.
        operations: the operation of each row; rows of one operation are drawn together.

    Raises:
        SurgdinoError: no rows, no resamples.
    """
    _check(len(operations), resamples)
    names = sorted(set(operations))
    rows_of = [np.flatnonzero(np.asarray(operations) == name) for name in names]
    values = dict(statistic(np.arange(len(operations))))
    drawn = np.full((resamples if len(names) > 1 else 0, len(values)), np.nan)
    for resample, draw in enumerate(_draws(len(names), len(drawn), seed)):
        result = statistic(np.concatenate([rows_of[operation] for operation in draw]))
        drawn[resample] = [result[name] for name in values]
    return {
        name: Interval(value=float(value), std=math.nan, **_ends(drawn[:, column]), n=len(names), left_out=0)
        for column, (name, value) in enumerate(values.items())
    }


def paired_difference(first: Mapping[str, float], second: Mapping[str, float]) -> PairedDifference:
    """The mean of first - second over the same operations, with its bootstrap interval.

    Raises:
        SurgdinoError: the two do not hold the same operations, and as `mean_interval`.
    """
    unpaired = sorted(set(first) ^ set(second))
    if unpaired:
        raise SurgdinoError(
            "the two systems were not scored on the same operations",
            place=unpaired[0],
            expected="every operation in both",
            found=f"{len(unpaired)} in one only",
            fix="score both on the same split",
        )
    differences = {operation: float(first[operation] - second[operation]) for operation in sorted(first)}
    values = np.array(list(differences.values()))
    return PairedDifference(mean_interval(differences), wins=int((values > 0).sum()), losses=int((values < 0).sum()))


def _draws(operations: int, resamples: int, seed: int) -> np.ndarray:
    """int64 [resamples, operations], with replacement."""
    return np.random.default_rng(seed).integers(0, operations, size=(resamples, operations))


def _ends(drawn: np.ndarray) -> dict:
    defined = drawn[~np.isnan(drawn)]
    outside = (1 - LEVEL) / 2
    low, high = np.quantile(defined, [outside, 1 - outside]) if defined.size else (math.nan, math.nan)
    return {"low": float(low), "high": float(high), "undefined_resamples": int(drawn.size - defined.size)}


def _check(operations: int, resamples: int) -> None:
    if not operations:
        raise SurgdinoError("there is no operation to resample", expected="at least one", found="none")
    if resamples < 1:
        raise SurgdinoError("too few resamples", expected="at least 1", found=resamples)
