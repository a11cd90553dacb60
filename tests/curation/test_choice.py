"""Balanced choice and weights: as even as the sizes allow, at every level."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from surgdino.curation.balance import choose, even_weights, water_level


@pytest.mark.slow
@given(st.lists(st.integers(0, 40), min_size=1, max_size=30), st.integers(0, 400), st.integers(0, 5))
def test_water_fills_evenly_and_to_the_brim(sizes, target, seed):
    taken = water_level(np.array(sizes), target, np.random.default_rng(seed))
    assert taken.sum() == min(target, sum(sizes))
    assert (taken <= sizes).all()
    short = taken[taken < sizes]  # groups that could give more have the same, but for one
    if len(short):
        assert short.max() - short.min() <= 1
        assert taken.max() <= short.min() + 1


def test_every_level_is_balanced_from_the_top_down():
    coarse = np.repeat([0, 1], [900, 100])
    fine = np.concatenate([np.repeat([0, 1, 2], [800, 50, 50]), np.repeat([3, 4], [90, 10])])
    kept = choose([coarse, fine], 200, seed=0)
    assert len(kept) == len(set(kept.tolist())) == 200
    assert (np.diff(kept) > 0).all()
    assert np.bincount(coarse[kept]).tolist() == [100, 100]
    counts = np.bincount(fine[kept])
    assert sorted(counts[:3]) == [33, 33, 34]
    assert counts[3:].tolist() == [90, 10]
    assert np.array_equal(kept, choose([coarse, fine], 200, seed=0))
    assert not np.array_equal(kept, choose([coarse, fine], 200, seed=1))


def test_all_are_kept_where_more_are_asked_for():
    assert choose([np.zeros(5, int)], 9, seed=0).tolist() == [0, 1, 2, 3, 4]


def test_weights_draw_siblings_alike():
    coarse = np.repeat([0, 1], [8, 2])
    fine = np.array([0, 0, 0, 0, 0, 0, 1, 1, 2, 3])
    weights = even_weights([coarse, fine])
    assert weights.mean() == pytest.approx(1)
    assert np.bincount(coarse, weights) == pytest.approx([5, 5])
    assert np.bincount(fine, weights) == pytest.approx([2.5, 2.5, 2.5, 2.5])
    # A group under two others counts as two.
    assert np.bincount(np.array([0, 0, 1]), even_weights([np.array([0, 0, 1]), np.array([7, 7, 7])])) == pytest.approx(
        [1.5, 1.5]
    )
