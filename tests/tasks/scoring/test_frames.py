"""Which frames of a classifier are right, as the pictures of a report mark them."""

from __future__ import annotations

import numpy as np
import pytest

from surgdino.tasks.scoring.frames import one_class, ranked, several_classes

NUMBERS = {"v": np.array([0, 25, 50])}
ONE = np.array([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])
SEVERAL = np.array([[0.9, 0.6, 0.1], [0.9, 0.6, 0.1], [0.1, 0.4, 0.2]])


@pytest.mark.parametrize(
    ("of", "truth", "found", "right"),
    [
        (one_class, [0, 1, -1], ONE, {0: "yes", 25: "no"}),
        (several_classes, [[1, 1, 0], [1, 0, 0], [0, 0, 0]], SEVERAL, {0: "yes", 25: "no", 50: "yes"}),
        (ranked, [[1, 0, 0], [0, 1, 1], [0, 0, 0]], SEVERAL, {0: "yes", 25: "no"}),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_a_frame_is_right_or_wrong_and_without_a_truth_neither(of, truth, found, right):
    scores = of({"v": np.array(truth)}, {"v": found}, NUMBERS, ("a", "b", "c"))
    assert {number: said for _, number, _, _, said in scores.rows} == right
