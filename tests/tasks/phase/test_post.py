"""Post-processing of phases: by name, the formulas by hand, and online ones never look ahead."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from surgdino.tasks.phase.post import processed, transitions

CLASSES = 3


def some(frames: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(CLASSES), frames).astype(np.float32)


FOLLOWS = transitions([np.array([0, 0, 0, 1, 1, 2]), np.array([0, 1, 1])], CLASSES)


def test_transitions_are_counted_within_videos_and_none_is_impossible():
    expected = np.array([[2 + 1, 2 + 1, 1], [1, 2 + 1, 1 + 1], [1, 1, 1]], float)
    np.testing.assert_allclose(FOLLOWS, expected / expected.sum(1, keepdims=True), rtol=1e-6)


def test_the_order_of_phases_weighs_every_path_by_its_transitions():
    """Of three frames all 27 paths are summed."""
    p = some(3).astype(float)
    paths = {path: np.prod([p[t, c] for t, c in enumerate(path)]) for path in itertools.product(range(3), repeat=3)}
    paths = {path: w * FOLLOWS[path[0], path[1]] * FOLLOWS[path[1], path[2]] for path, w in paths.items()}
    for t in range(3):
        expected = np.array([sum(w for path, w in paths.items() if path[t] == c) for c in range(3)])
        found = processed(some(3), "order_offline", 1, FOLLOWS)[t]
        np.testing.assert_allclose(found, expected / expected.sum(), rtol=1e-5)
    np.testing.assert_allclose(processed(some(3), "order", 1, FOLLOWS)[2], found, rtol=1e-5)  # the end knows all


@pytest.mark.parametrize("frames", [1, 4, 5])
def test_the_mean_is_over_the_last_frames_and_offline_around_the_frame(frames):
    p = some(20)
    back, around = processed(p, "mean", frames, None), processed(p, "mean_offline", frames, None)
    np.testing.assert_allclose(back[10], p[11 - frames : 11].mean(0), rtol=1e-5)
    half = frames // 2
    np.testing.assert_allclose(around[10], p[10 - half : 11 + half].mean(0), rtol=1e-5)
    np.testing.assert_allclose(back[0], p[0], rtol=1e-5)  # before the first frame stands the first frame


@pytest.mark.parametrize("post", ["mean", "mean_offline", "order", "order_offline"])
def test_only_what_is_called_offline_looks_ahead(post):
    before, after = some(30), np.concatenate([some(15), some(15, seed=1)])
    found, changed = (processed(each, post, 7, FOLLOWS) for each in (before, after))
    assert np.array_equal(found[:15], changed[:15]) is not post.endswith("offline")
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)
    assert processed(some(0), post, 7, FOLLOWS).shape == (0, CLASSES)
    assert processed(before, "none", 7, None) is before
