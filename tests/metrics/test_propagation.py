"""J, F and their course: by hand, and against a slow implementation that dilates as DAVIS describes it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from surgdino.errors import SurgdinoError
from surgdino.metrics.propagation import boundary, boundary_scores, course, region_scores


def slow_boundary(mask: np.ndarray) -> set[tuple[int, int]]:
    height, width = mask.shape
    found = set()
    for y in range(height):
        for x in range(width):
            down, right = min(y + 1, height - 1), min(x + 1, width - 1)
            if len({bool(mask[y, x]), bool(mask[down, x]), bool(mask[y, right]), bool(mask[down, right])}) > 1:
                found.add((y, x))
    return found


def slow_f(truth: np.ndarray, prediction: np.ndarray, tolerance: float) -> float:
    radius = math.ceil(tolerance * math.sqrt(truth.shape[0] ** 2 + truth.shape[1] ** 2))
    disc = [
        (y, x)
        for y in range(-radius, radius + 1)
        for x in range(-radius, radius + 1)
        if x * x + y * y <= radius * radius
    ]
    true, found = slow_boundary(truth), slow_boundary(prediction)
    if not true or not found:
        return float(not true and not found)
    wide_true, wide_found = ({(y + dy, x + dx) for y, x in line for dy, dx in disc} for line in (true, found))
    precision, recall = len(found & wide_true) / len(found), len(true & wide_found) / len(true)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@pytest.mark.parametrize("seed", range(12))
def test_boundary_f_is_that_of_dilated_boundaries(seed):
    rng = np.random.default_rng(seed)
    size = tuple(rng.integers(12, 40, 2))
    y, x = np.mgrid[: size[0], : size[1]]
    masks = []
    for _ in range(4):
        centre, radius = rng.uniform(-3, 40, 2), rng.uniform(3, 14)
        masks.append((np.hypot(y - centre[0], x - centre[1]) < radius) ^ (rng.random(size) < 0.01))
    truth, prediction = np.array(masks[:2]), np.array(masks[2:])
    tolerance = float(rng.choice([0.008, 0.05, 0.1]))
    expected = [slow_f(*pair, tolerance) for pair in zip(truth, prediction, strict=True)]
    assert boundary_scores(truth, prediction, tolerance) == pytest.approx(expected, abs=1e-12)


def test_by_hand():
    """A square of 4x4 pixels, moved by two columns; 24x32 pixels have a diagonal of 40, of which 0.05 are 2 pixels."""
    truth, moved, none = np.zeros((3, 1, 24, 32), bool)
    truth[0, 4:8, 4:8], moved[0, 4:8, 6:10] = True, True
    assert boundary(truth[0]).sum() == 5 * 5 - 3 * 3  # a frame around it, its lower and right side within
    assert region_scores(truth, moved) == pytest.approx([8 / 24])
    assert region_scores(truth, truth) == boundary_scores(truth, truth) == [1]
    assert boundary_scores(truth, moved, 0.05) == [1]
    # Within 1 pixel match 5 + 5 on the two long sides' shared columns and their ends: 4 columns of each row.
    assert boundary_scores(truth, moved, 0.01) == pytest.approx([slow_f(truth[0], moved[0], 0.01)])
    assert boundary_scores(truth, moved, 0.01) < 1
    for one, other, value in ((none, none, 1), (truth, none, 0), (none, truth, 0)):
        assert region_scores(one, other) == boundary_scores(one, other) == [value]
    full = ~none
    assert (region_scores(full, full), boundary_scores(full, full)) == ([1], [1])


def test_the_course_over_time():
    values = np.array([1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3])
    # Quarters of eight frames end at frames 1, 3, 5 (4.5 and a little), 6 and 8, counted from 1.
    assert course(values) == pytest.approx((0.65, 5 / 8, (1 + 0.9 + 0.8) / 3 - (0.5 + 0.4 + 0.3) / 3))
    assert course(np.array([0.7])) == pytest.approx((0.7, 1, 0))
    assert course(np.array([np.nan, 0.4, 0.6])) == pytest.approx((0.5, 0.5, -0.2), nan_ok=True)
    assert np.isnan(course(np.full(3, np.nan))).all()


def test_masks_that_do_not_fit_are_one_line():
    with pytest.raises(SurgdinoError, match="not the masks of the same objects"):
        region_scores(np.zeros((1, 4, 4), bool), np.zeros((1, 4, 5), bool))
    with pytest.raises(SurgdinoError, match="found uint8"):
        boundary_scores(np.zeros((1, 4, 4), bool), np.zeros((1, 4, 4), np.uint8))
