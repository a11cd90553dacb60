"""Intervals leave out operations: NaN-aware, honest about n, of the width that the textbook gives, absent below six."""

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
from surgdino.metrics.intervals import ENOUGH, jackknife, mean_interval, operations_of, paired_difference


def by_operation(values) -> dict[str, float]:
    return {f"camma/{number}": float(value) for number, value in enumerate(values)}


def test_mean_and_deviation_over_operations():
    interval = mean_interval(by_operation([0.8, 0.9, 0.7]))
    assert interval.value == pytest.approx(0.8)
    assert interval.std == pytest.approx(0.1)
    assert (interval.n, interval.left_out) == (3, 0)


def test_the_interval_of_a_mean_is_students():
    values = np.random.default_rng(0).normal(size=9)
    ours = mean_interval(by_operation(values))
    theirs = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high))


def test_the_interval_of_a_pooled_share_is_the_jackknifes_in_log_odds():
    rng = np.random.default_rng(3)
    frames, right = rng.integers(50, 200, 8), rng.beta(8, 2, 8)
    hits = frames * right
    names = [f"op{number}" for number in range(8)]
    pooled = jackknife(lambda rows: {"a": hits[rows].sum() / frames[rows].sum()}, names, shares=["a"])["a"]
    odds = [math.log(share / (1 - share)) for share in ((hits.sum() - hits) / (frames.sum() - frames))]
    pseudo = [8 * math.log(pooled.value / (1 - pooled.value)) - 7 * each for each in odds]  # Tukey's pseudo-values
    reach = stats.t.ppf(0.975, 7) * np.std(pseudo, ddof=1) / math.sqrt(8)
    centre = math.log(pooled.value / (1 - pooled.value))
    assert pooled.low == pytest.approx(1 / (1 + math.exp(reach - centre)))
    assert pooled.high == pytest.approx(1 / (1 + math.exp(-reach - centre)))


@pytest.mark.parametrize("count", range(1, 9))
def test_below_six_operations_there_is_no_interval(count):
    interval = mean_interval(by_operation(np.linspace(0.2, 0.8, count)))
    pooled = jackknife(lambda rows: {"x": float(rows.mean())}, [f"{n}" for n in range(count)])["x"]
    assert math.isnan(interval.low) == math.isnan(pooled.high) == (count < ENOUGH)
    if count < ENOUGH:
        assert json.loads(json.dumps(as_json(interval), allow_nan=False))["high"] is None


def test_undefined_operations_are_left_out_and_counted():
    values = by_operation([0.5, np.nan, 0.7, 0.9, 0.6, 0.8, 0.4])
    interval, without = mean_interval(values), mean_interval({k: v for k, v in values.items() if not math.isnan(v)})
    assert (interval.n, interval.left_out) == (6, 1)
    assert (interval.value, interval.low, interval.high) == (without.value, without.low, without.high)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=ENOUGH, max_size=12))
def test_the_interval_of_shares_holds_the_mean_and_stays_a_share(values):
    interval = mean_interval(by_operation(values), shares=True)
    assert 0 <= interval.low <= interval.value + 1e-12
    assert interval.value - 1e-12 <= interval.high <= 1
    assert interval == mean_interval(dict(reversed(by_operation(values).items())), shares=True)


def test_rows_of_one_operation_are_left_out_together():
    operations = [*"abcdef", *"abcdef"]
    seen = []
    jackknife(lambda rows: seen.append(rows.tolist()) or {"x": 0.0}, operations)
    assert seen[0] == list(range(12))
    assert sorted(sorted(set(range(12)) - set(rows)) for rows in seen[1:]) == [[n, n + 6] for n in range(6)]


def test_a_figure_that_depends_on_one_operation_has_no_interval():
    values = np.array([0.5, *[np.nan] * 6])
    interval = jackknife(
        lambda rows: {"x": float(np.nanmean(values[rows])) if 0 in rows else math.nan}, list("abcdefg")
    )
    assert interval["x"].value == 0.5
    assert math.isnan(interval["x"].low)


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
    assert paired.values == pytest.approx({"a": 0.0, "c": -0.1})


def test_what_does_not_fit_is_refused():
    with pytest.raises(SurgdinoError, match="not scored on the same operations"):
        paired_difference({"a": 1.0}, {"b": 1.0})
    with pytest.raises(SurgdinoError, match="no operation to judge by"):
        mean_interval({})
    with pytest.raises(SurgdinoError, match="a value is infinite"):
        mean_interval({"a": math.inf})


def test_metrics_import_neither_torch_nor_another_room():
    modules = [f"surgdino.metrics.{path.stem}" for path in Path(surgdino.metrics.__file__).parent.glob("[a-z]*.py")]
    code = (
        f"import sys, importlib\nfor m in {modules!r}: importlib.import_module(m)\n"
        "rooms = {m.split('.')[1] for m in sys.modules if m.startswith('surgdino.')}\n"
        "assert rooms == {'metrics', 'errors', 'wording'}, rooms\n"
        "assert not {'torch', 'monai', 'sklearn', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
