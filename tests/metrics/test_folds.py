"""A measure over folds and seeds, against numpy by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from surgdino.metrics.folds import over_runs
from surgdino.metrics.intervals import mean_interval

RUNS = [(f"fold{fold}", seed) for fold in range(3) for seed in (4, 7)]


def test_mean_and_deviation_over_folds_seeds_and_operations():
    rng = np.random.default_rng(0)
    table, operations = rng.random((3, 2)), rng.random((3, 2, 4))
    values = dict(zip(RUNS, table.ravel(), strict=True))
    each = {
        (f"fold{fold}", seed): {f"op/{fold}{k}": operations[fold, place, k] for k in range(4)}
        for fold in range(3)
        for place, seed in enumerate((4, 7))
    }
    found = over_runs(values, each, shares=True)
    assert found.value == pytest.approx(table.mean())
    assert found.std_over_folds == pytest.approx(np.std(table.mean(1), ddof=1))
    assert found.std_over_seeds == pytest.approx(np.std(table.mean(0), ddof=1))
    pooled = operations.mean(1).ravel()  # seeds inside operations
    assert list(found.per_operation.values()) == pytest.approx(list(pooled))
    assert found.operations.value == pytest.approx(pooled.mean())
    assert found.operations.std == pytest.approx(pooled.std(ddof=1))
    assert found.operations == mean_interval({str(k + 10): value for k, value in enumerate(pooled)}, shares=True)
    assert found.operations.low < pooled.mean() < found.operations.high


def test_an_operation_that_several_folds_test_counts_once_and_what_is_undefined_not_at_all():
    values = {("a", 0): 0.5, ("b", 0): math.nan}
    found = over_runs(values, {("a", 0): {"op/1": 0.2, "op/2": math.nan}, ("b", 0): {"op/1": 0.6}})
    assert found.value == 0.5
    assert math.isnan(found.std_over_folds)
    assert math.isnan(found.std_over_seeds)
    assert found.per_operation["op/1"] == pytest.approx(0.4)
    assert (found.operations.n, found.operations.left_out) == (1, 1)
