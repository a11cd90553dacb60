"""Depth errors: by hand, and against a slow version that is written straight from the formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest

from surgdino.errors import SurgdinoError
from surgdino.metrics.depth import MEASURES, depth_errors

HOW = ("none", "median", "scale-shift")


def slow(truth: np.ndarray, predicted: np.ndarray, how: str, nearest: float, farthest: float) -> dict[str, float]:
    """A pixel at a time, in plain Python."""
    pairs = [
        (float(t), float(p))
        for t, p in zip(truth.ravel(), predicted.ravel(), strict=True)
        if math.isfinite(t) and nearest < t < farthest
    ]

    def middle(values: list[float]) -> float:
        ordered, half = sorted(values), len(values) // 2
        return ordered[half] if len(values) % 2 else (ordered[half - 1] + ordered[half]) / 2

    n = len(pairs)
    scale, shift = 1.0, 0.0
    if how == "median":
        scale = middle([t for t, _ in pairs]) / middle([p for _, p in pairs])
    if how == "scale-shift":  # the normal equations of one variable
        mean_t, mean_p = sum(t for t, _ in pairs) / n, sum(p for _, p in pairs) / n
        scale = sum((p - mean_p) * (t - mean_t) for t, p in pairs) / sum((p - mean_p) ** 2 for _, p in pairs)
        shift = mean_t - scale * mean_p
    pairs = [(t, min(max(scale * p + shift, nearest), farthest)) for t, p in pairs]
    logs = [math.log(p) - math.log(t) for t, p in pairs]
    found = {
        "AbsRel": sum(abs(p - t) / t for t, p in pairs) / n,
        "SqRel": sum((p - t) ** 2 / t for t, p in pairs) / n,
        "RMSE": math.sqrt(sum((p - t) ** 2 for t, p in pairs) / n),
        "RMSE log": math.sqrt(sum(e * e for e in logs) / n),
        "SILog": 100 * math.sqrt(sum(e * e for e in logs) / n - (sum(logs) / n) ** 2),
    }
    for k, name in enumerate(("delta < 1.25", "delta < 1.25^2", "delta < 1.25^3"), start=1):
        found[name] = sum(max(t / p, p / t) < 1.25**k for t, p in pairs) / n
    return found


def test_by_hand():
    truth, predicted = np.array([[1.0, 2.0, 4.0, np.nan]]), np.array([[2.0, 2.0, 2.0, 7.0]])
    found = depth_errors(truth, predicted, "none", 0.1, 10)
    assert found["AbsRel"] == pytest.approx((1 + 0 + 0.5) / 3)
    assert found["SqRel"] == pytest.approx((1 + 0 + 1) / 3)
    assert found["RMSE"] == pytest.approx(math.sqrt((1 + 0 + 4) / 3))
    assert found["RMSE log"] == pytest.approx(math.log(2) * math.sqrt(2 / 3))
    assert found["SILog"] == pytest.approx(100 * math.log(2) * math.sqrt(2 / 3))  # the logs' mean is 0
    assert [found[name] for name in MEASURES if name.startswith("delta")] == pytest.approx([1 / 3, 1 / 3, 1 / 3])


@pytest.mark.parametrize("how", HOW)
def test_every_alignment_is_the_slow_versions(how):
    rng = np.random.default_rng(0)
    for share in (0.0, 0.5, 0.97):  # from dense to sparse
        truth = rng.uniform(1, 120, (13, 17))
        predicted = np.abs(0.4 * truth + 9 + rng.normal(0, 8, truth.shape)) + 0.1
        truth[rng.random(truth.shape) < share] = np.nan
        truth[0, :3] = (0, np.inf, 300)  # unknown, and out of range
        found, expected = depth_errors(truth, predicted, how, 2, 100), slow(truth, predicted, how, 2, 100)
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_alignment_undoes_what_it_is_named_after():
    truth = np.random.default_rng(1).uniform(5, 90, (8, 8))
    assert depth_errors(truth, truth / 7, "median", 1, 100)["RMSE"] == pytest.approx(0, abs=1e-9)
    assert depth_errors(truth, truth / 7 + 3, "scale-shift", 1, 100)["RMSE"] == pytest.approx(0, abs=1e-9)
    assert depth_errors(truth, truth / 7 + 3, "median", 1, 100)["RMSE"] > 1
    assert depth_errors(truth, np.full((8, 8), 9.0), "scale-shift", 1, 100)["RMSE"] == pytest.approx(truth.std())


def test_what_cannot_be_measured_is_undefined_or_refused():
    known, nothing = np.ones((2, 2)), np.full((2, 2), np.nan)
    assert all(math.isnan(value) for value in depth_errors(nothing, known, "median", 0.1, 10).values())
    assert (
        depth_errors(np.where(np.eye(2) > 0, 1, np.nan), np.where(np.eye(2) > 0, 1, np.nan), "none", 0.1, 10)["RMSE"]
        == 0
    )
    with pytest.raises(SurgdinoError, match="a predicted depth is not finite; expected numbers, found 4 of 4 pixels"):
        depth_errors(known, nothing, "none", 0.1, 10)
    with pytest.raises(SurgdinoError, match="differ in size"):
        depth_errors(known, np.ones((2, 3)), "none", 0.1, 10)
