"""A 95 % interval holds the truth in 93 to 97 of 100 trials, for each kind of figure and from six operations on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from surgdino.metrics.intervals import ENOUGH, interval_ends

TRIALS = 4000  # the share of trials is known to 0.35 points (one standard error), so 2 points are no chance
Draw = Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]]


def mean_of(draw: Callable[[np.random.Generator, int], np.ndarray]) -> Draw:
    """A figure on n operations and without each of them: the mean of their values."""

    def drawn(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        values = draw(rng, count)
        return values.mean(1), (values.sum(1, keepdims=True) - values) / (count - 1)

    return drawn


def pooled(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy over the frames of operations of very different lengths."""
    frames, right = rng.gamma(8, 200, (TRIALS, count)), rng.beta(8, 2, (TRIALS, count))
    hits = frames * right
    without = (hits.sum(1, keepdims=True) - hits) / (frames.sum(1, keepdims=True) - frames)
    return hits.sum(1) / frames.sum(1), without


# Name -> how it is drawn, its true value, whether it is a share.
FIGURES: dict[str, tuple[Draw, float, bool]] = {
    "normal": (mean_of(lambda rng, n: rng.normal(size=(TRIALS, n))), 0, False),
    "difference of two systems that are alike": (
        mean_of(lambda rng, n: rng.beta(8, 2, (TRIALS, n)) - rng.beta(8, 2, (TRIALS, n))),
        0,
        False,
    ),
    "shares around 0.8": (mean_of(lambda rng, n: rng.beta(8, 2, (TRIALS, n))), 0.8, True),
    "shares near 1": (mean_of(lambda rng, n: rng.beta(20, 1.5, (TRIALS, n))), 20 / 21.5, True),
    "shares near 0": (mean_of(lambda rng, n: rng.beta(1, 8, (TRIALS, n))), 1 / 9, True),
    "pooled accuracy": (pooled, 0.8, True),
}


@pytest.mark.slow
@pytest.mark.parametrize("count", [ENOUGH, 8, 12, 20])
@pytest.mark.parametrize("name", FIGURES)
def test_coverage_is_within_two_points_of_95_percent(name, count):
    draw, truth, share = FIGURES[name]
    figures = zip(*draw(np.random.default_rng(count), count), strict=True)
    ends = np.array([interval_ends(value, without, share) for value, without in figures])
    inside = np.mean((ends[:, 0] <= truth) & (truth <= ends[:, 1]))
    assert abs(inside - 0.95) < 0.02, f"{inside:.1%} of the intervals hold the truth"


def test_a_percentile_bootstrap_would_not():
    """Why it was given up: at six operations its intervals hold the truth in 83 to 88 of 100 trials."""
    rng, inside = np.random.default_rng(0), 0
    for _ in range(500):
        values = rng.normal(size=ENOUGH)
        means = values[rng.integers(0, ENOUGH, (500, ENOUGH))].mean(1)
        low, high = np.quantile(means, [0.025, 0.975])
        inside += low <= 0 <= high
    assert inside / 500 < 0.91
