"""A measure over several runs, as papers print a cross-validation: mean and deviation over folds, and over operations.

The value is the mean over folds of what the protocol gives on each fold's test part (Nwoye and Padoy 2022, for
CholecT45 and CholecT50); where a fold was trained with several seeds, the mean over them comes first. The interval is
over operations: an operation's values of all runs that tested it are averaged, then all operations are pooled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from surgdino.metrics.arrays import nanmean, nanstd
from surgdino.metrics.intervals import Interval, mean_interval

Run = tuple[str, int]  # fold and seed


@dataclass(frozen=True)
class OverRuns:
    """One measure over all runs.

    Attributes:
        value: mean over folds, in each of them over seeds.
        std_over_folds: sample standard deviation of the folds' means over seeds; NaN below two folds.
        std_over_seeds: the same of the seeds' means over folds; NaN below two seeds.
        operations: mean, spread and interval of `per_operation`.
        per_operation: operation -> mean over the runs that tested it; NaN where it is undefined in all of them.
    """

    value: float
    std_over_folds: float
    std_over_seeds: float
    operations: Interval
    per_operation: Mapping[str, float]


def over_runs(
    values: Mapping[Run, float], per_operation: Mapping[Run, Mapping[str, float]], *, shares: bool = False
) -> OverRuns:
    """One measure of the same folds with the same seeds each.

    Args:
        values: of each run on its own test part; NaN is left out.
        per_operation: run -> operation -> value; NaN is left out.
        shares: whether all values lie in [0, 1].
    """
    folds, seeds = dict.fromkeys(fold for fold, _ in values), dict.fromkeys(seed for _, seed in values)
    table = np.array([[values[fold, seed] for seed in seeds] for fold in folds], dtype=np.float64)
    found: dict[str, list[float]] = {}
    for each in per_operation.values():
        for operation, value in each.items():
            found.setdefault(operation, []).append(value)
    means = {operation: float(nanmean(np.array(each))) for operation, each in sorted(found.items())}
    by_fold = nanmean(table, 1)
    return OverRuns(
        value=float(nanmean(by_fold)),
        std_over_folds=nanstd(by_fold),
        std_over_seeds=nanstd(nanmean(table, 0)),
        operations=mean_interval(means, shares=shares),
        per_operation=means,
    )
