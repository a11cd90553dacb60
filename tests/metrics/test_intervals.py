"""Intervals resample operations: seeded, NaN-aware, honest about n, and of the width that the textbook gives."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import surgdino.metrics
from surgdino.errors import SurgdinoError
from surgdino.metrics.arrays import as_json
from surgdino.metrics.intervals import bootstrap, mean_interval, operations_of, paired_difference


def by_operation(values) -> dict[str, float]:
    return {f"camma/{number}": float(value) for number, value in enumerate(values)}


def test_mean_and_deviation_over_operations():
    interval = mean_interval(by_operation([0.8, 0.9, 0.7]))
    assert interval.value == pytest.approx(0.8)
    assert interval.std == pytest.approx(0.1)
    assert (interval.n, interval.left_out) == (3, 0)


def test_the_interval_is_scipys_percentile_bootstrap():
    values = np.random.default_rng(0).beta(8, 2, size=25)
    ours = mean_interval(by_operation(values), resamples=20000)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20000, method="percentile", rng=1).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=2e-3)


def test_it_covers_the_true_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    inside = 0
    for trial in range(300):
        interval = mean_interval(by_operation(rng.normal(size=40)), resamples=400, seed=trial)
        inside += interval.low <= 0 <= interval.high
    assert 0.90 <= inside / 300 <= 0.98


def test_the_seed_decides_and_the_order_of_operations_does_not():
    values = by_operation(np.random.default_rng(2).random(9))
    assert mean_interval(values, seed=3) == mean_interval(dict(reversed(values.items())), seed=3)
    assert mean_interval(values, seed=3).low != mean_interval(values, seed=4).low


def test_undefined_operations_are_left_out_and_counted():
    values = by_operation([0.5, np.nan, 0.7, 0.9])
    interval, without = mean_interval(values), mean_interval({k: v for k, v in values.items() if not math.isnan(v)})
    assert (interval.n, interval.left_out) == (3, 1)
    assert (interval.value, interval.low, interval.high) == (without.value, without.low, without.high)


@pytest.mark.parametrize("values", [[0.4], [0.4, np.nan], [np.nan]])
def test_fewer_than_two_operations_have_no_interval(values):
    interval = mean_interval(by_operation(values))
    assert math.isnan(interval.low)
    assert math.isnan(interval.std)
    assert json.loads(json.dumps(as_json(interval), allow_nan=False))["high"] is None


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=12), st.integers(0, 99))
def test_the_interval_holds_the_mean_and_stays_within_the_values(values, seed):
    interval = mean_interval(by_operation(values), resamples=200, seed=seed)
    assert min(values) - 1e-12 <= interval.low <= interval.high <= max(values) + 1e-12


def test_a_statistic_that_is_the_mean_gives_the_means_interval():
    values = np.random.default_rng(5).random(10)
    names = [f"op{number}" for number in range(10)]
    pooled = bootstrap(lambda rows: {"mean": values[rows].mean()}, names, resamples=500, seed=6)["mean"]
    direct = mean_interval(dict(zip(names, values, strict=True)), resamples=500, seed=6)
    assert (pooled.low, pooled.high) == pytest.approx((direct.low, direct.high), abs=1e-12)


def test_rows_of_one_operation_are_drawn_together():
    operations = ["a", "b", "a", "b", "c"]
    seen = []
    bootstrap(lambda rows: seen.append(sorted(rows.tolist())) or {"x": 0.0}, operations, resamples=40)
    assert seen[0] == [0, 1, 2, 3, 4]
    for rows in seen[1:]:
        assert rows.count(0) == rows.count(2)
        assert rows.count(1) == rows.count(3)
        assert rows.count(0) + rows.count(1) + rows.count(4) == 3


def test_resamples_without_the_statistic_are_counted():
    values = np.array([np.nan, 0.5, 0.7])
    interval = bootstrap(lambda rows: {"x": float(np.mean(values[rows]))}, ["a", "b", "c"], resamples=300)["x"]
    assert 0 < interval.undefined_resamples < 300
    assert 0.5 <= interval.low <= interval.high <= 0.7


def test_every_video_belongs_to_an_operation():
    assert operations_of(["v1", "w"], {"v1": "a", "w": "b"}) == ["a", "b"]
    assert operations_of(["v1", "w"], None) == ["v1", "w"]
    with pytest.raises(SurgdinoError, match="v1: a video belongs to no operation"):
        operations_of(["v1"], {})


def test_a_paired_difference_is_narrower_than_the_spread_of_operations():
    rng = np.random.default_rng(7)
    hardness = rng.normal(scale=0.1, size=20)
    first = by_operation(0.80 + hardness + rng.normal(scale=0.01, size=20))
    second = by_operation(0.78 + hardness + rng.normal(scale=0.01, size=20))
    paired = paired_difference(first, second)
    assert paired.difference.value == pytest.approx(np.mean([first[o] - second[o] for o in first]))
    assert 0 < paired.difference.low < paired.difference.high < 0.05
    alone = mean_interval(first)
    assert paired.difference.high - paired.difference.low < (alone.high - alone.low) / 3
    assert paired.wins + paired.losses == 20
    turned = paired_difference(second, first).difference
    assert (turned.low, turned.high) == pytest.approx((-paired.difference.high, -paired.difference.low))


def test_a_paired_difference_leaves_out_what_either_lacks_a_value_for():
    paired = paired_difference({"a": 0.5, "b": np.nan, "c": 0.5}, {"a": 0.5, "b": 0.1, "c": 0.6})
    assert (paired.difference.n, paired.difference.left_out) == (2, 1)
    assert (paired.wins, paired.losses) == (0, 1)


def test_what_does_not_fit_is_refused():
    with pytest.raises(SurgdinoError, match="not scored on the same operations"):
        paired_difference({"a": 1.0}, {"b": 1.0})
    with pytest.raises(SurgdinoError, match="no operation to resample"):
        mean_interval({})
    with pytest.raises(SurgdinoError, match="too few resamples"):
        mean_interval({"a": 1.0}, resamples=0)
    with pytest.raises(SurgdinoError, match="a value is infinite"):
        mean_interval({"a": math.inf})


def test_metrics_import_neither_torch_nor_another_room():
    modules = [f"surgdino.metrics.{path.stem}" for path in Path(surgdino.metrics.__file__).parent.glob("[a-z]*.py")]
    code = (
        f"import sys, importlib\nfor m in {modules!r}: importlib.import_module(m)\n"
        "rooms = {m.split('.')[1] for m in sys.modules if m.startswith('surgdino.')}\n"
        "assert rooms == {'metrics', 'errors'}, rooms\n"
        "assert not {'torch', 'monai', 'sklearn', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
