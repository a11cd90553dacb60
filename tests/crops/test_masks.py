"""Block masks as iBOT and DINOv2 draw them: half of the views, shares stratified, blocks of at least four patches."""

from __future__ import annotations

import random

import numpy as np
import pytest

from surgdino.crops.masks import block_mask, mask_ratios


def sample_masks(views: int, rng: random.Random, probability: float = 0.5) -> np.ndarray:
    """bool [views, 14 * 14]: the masks of one step."""
    shares = mask_ratios(views, rng, probability, (0.1, 0.5))
    return np.array([block_mask((14, 14), share, rng).ravel() for share in shares]).reshape(views, 196)


def test_half_of_the_views_are_masked_and_one_token_in_seven_overall() -> None:
    rng, shares = random.Random(0), []
    for _ in range(20):
        masks = sample_masks(64, rng)
        assert masks.shape == (64, 196)
        assert masks.dtype == bool
        assert (masks.any(axis=1)).sum() == 32
        shares.append(masks.mean())
    assert np.mean(shares) == pytest.approx(0.148, abs=0.004)  # facts/simdinov2.md: 14.8 %


def test_the_shares_are_stratified() -> None:
    shares = np.sort(mask_ratios(80, random.Random(1), 0.5, (0.1, 0.5)))
    assert (shares[:40] == 0).all()
    edges = np.linspace(0.1, 0.5, 41)
    assert ((shares[40:] >= edges[:-1]) & (shares[40:] <= edges[1:])).all()


@pytest.mark.parametrize("grid", [(14, 14), (16, 16), (7, 7), (4, 4), (8, 14)])
@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_a_mask_covers_its_share_and_never_more(grid: tuple[int, int], share: float) -> None:
    counts = [block_mask(grid, share, random.Random(seed)).sum() for seed in range(100)]
    target = int(share * grid[0] * grid[1])
    assert max(counts) <= target
    if target >= 4:  # the smallest block
        assert np.mean(counts) >= 0.8 * target


def test_masks_are_made_of_blocks() -> None:
    """Most masked patches have a masked neighbour on at least two sides, unlike in masks drawn patch by patch."""
    mask = np.stack([block_mask((14, 14), 0.3, random.Random(seed)) for seed in range(50)])
    padded = np.pad(mask, ((0, 0), (1, 1), (1, 1)))
    neighbours = sum(np.roll(padded, shift, axis)[:, 1:-1, 1:-1].astype(int) for shift in (-1, 1) for axis in (1, 2))
    assert (neighbours[mask] >= 2).mean() > 0.9


def test_no_masks_where_none_are_asked_for() -> None:
    assert not sample_masks(8, random.Random(0), probability=0.0).any()
    assert sample_masks(0, random.Random(0)).shape == (0, 196)


def test_an_odd_number_of_views_and_all_of_them() -> None:
    assert sample_masks(5, random.Random(0)).any(axis=1).sum() == 3
    assert sample_masks(5, random.Random(0), probability=1.0).any(axis=1).all()


def test_the_same_seed_gives_the_same_masks() -> None:
    assert np.array_equal(sample_masks(6, random.Random(7)), sample_masks(6, random.Random(7)))
