"""Retrieval and calibration: by hand, and against slow versions that are written straight from the formulas."""

from __future__ import annotations

import numpy as np
import pytest

from surgdino.errors import SurgdinoError
from surgdino.metrics.calibration import expected_calibration_error
from surgdino.metrics.retrieval import ranking


def one_query(similarity: list[float], positive: list[int], junk: list[int], ks=(1, 2)):
    count = len(similarity)
    is_positive, is_junk = np.zeros((1, count), bool), np.zeros((1, count), bool)
    is_positive[0, positive], is_junk[0, junk] = True, True
    found = ranking(np.array([similarity]), is_positive, is_junk, ks)
    return found.average_precision[0], found.recall[0].tolist(), found.precision[0].tolist(), found.chance[0]


def test_by_hand():
    # Ranks of the positives 0 and 2, of three: (1 + 1) / 2 and (1/2 + 2/3) / 2.
    ap, recall, precision, chance = one_query([0.9, 0.8, 0.7], [0, 2], [])
    assert ap == pytest.approx((1 + (1 / 2 + 2 / 3) / 2) / 2)
    assert (recall, precision, chance) == ([1, 1], [1, 0.5], pytest.approx(2 / 3))
    # Junk in front of a positive is taken out, so the positive moves up to the first place.
    assert one_query([0.9, 0.8, 0.7], [1], [0])[0] == 1
    assert one_query([0.9, 0.8, 0.7], [1], [])[0] == pytest.approx((0 + 1 / 2) / 2)


def test_a_query_without_positives_is_undefined():
    ap, recall, precision, chance = one_query([0.9, 0.8], [], [0])
    assert np.isnan([ap, *recall, *precision, chance]).all()


def slow_ap(similarity: np.ndarray, positive: np.ndarray, junk: np.ndarray) -> float:
    """The benchmark's own loop: walk down the ranking, skip junk, sum trapezoids."""
    ap, found, rank = 0.0, 0, 0
    for place in sorted(range(len(similarity)), key=lambda i: -similarity[i]):
        if junk[place]:
            continue
        if positive[place]:
            before = 1.0 if rank == 0 else found / rank
            found += 1
            ap += (before + found / (rank + 1)) / 2 / positive.sum()
        rank += 1
    return ap


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_is_that_of_the_slow_loop(seed):
    rng = np.random.default_rng(seed)
    similarity = rng.normal(size=(20, 60))
    positive = rng.random((20, 60)) < 0.15
    junk = (rng.random((20, 60)) < 0.2) & ~positive
    found = ranking(similarity, positive, junk, [1, 5, 1000])
    slow = [slow_ap(*rows) if rows[1].any() else np.nan for rows in zip(similarity, positive, junk, strict=True)]
    np.testing.assert_allclose(found.average_precision, slow, atol=1e-12)
    for row, (alike, good, bad) in enumerate(zip(similarity, positive, junk, strict=True)):
        ranked = [good[i] for i in np.argsort(-alike) if not bad[i]]
        for column, k in enumerate((1, 5, 1000)):
            first = ranked[:k]
            assert np.isnan(found.recall[row, column]) == (not good.any())
            if good.any():
                assert found.recall[row, column] == any(first)
                assert found.precision[row, column] == pytest.approx(sum(first) / len(first))


@pytest.mark.parametrize(
    ("similarity", "positive", "junk", "words"),
    [
        (np.zeros((1, 2)), np.zeros((1, 3), bool), np.zeros((1, 2), bool), "do not fit"),
        (np.array([[np.nan, 1.0]]), np.zeros((1, 2), bool), np.zeros((1, 2), bool), "not finite"),
        (np.zeros((1, 2)), np.ones((1, 2), bool), np.ones((1, 2), bool), "junk at once"),
    ],
)
def test_odd_rankings_are_refused(similarity, positive, junk, words):
    with pytest.raises(SurgdinoError, match=words):
        ranking(similarity, positive, junk, [1])


def test_calibration_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.3, 0.7], [0.3, 0.7]])
    # Sure by 0.9 and right half the time; sure by 0.7 and always right: gaps of 0.4 and 0.3, each of half the frames.
    assert expected_calibration_error(probabilities, np.array([0, 1, 1, 1])) == pytest.approx(0.35)
    assert np.isnan(expected_calibration_error(np.empty((0, 2)), np.empty(0, int)))


def test_calibration_is_that_of_a_loop_over_bins():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(4), 500)
    truth = rng.integers(0, 4, 500)
    confidence, right = probabilities.max(1), probabilities.argmax(1) == truth
    slow = 0.0
    for low, high in zip(np.linspace(0, 1, 16)[:-1], np.linspace(0, 1, 16)[1:], strict=True):
        within = (confidence > low) & (confidence <= high)
        slow += within.mean() * abs(right[within].mean() - confidence[within].mean()) if within.any() else 0
    assert expected_calibration_error(probabilities, truth) == pytest.approx(slow)
