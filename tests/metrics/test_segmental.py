"""Segmental metrics: order and extent, by hand and by plain recursion."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surgdino.metrics.segmental import (
    edit_distance,
    edit_score,
    f1_of,
    matched_segments,
    segments,
)
from tests.metrics.phase_scores import score_segments

labels = st.lists(st.integers(0, 4), min_size=1, max_size=30).map(np.array)


def recursive_distance(first: tuple, second: tuple) -> int:
    @functools.cache
    def distance(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        replaced = distance(i - 1, j - 1) + (first[i - 1] != second[j - 1])
        return min(replaced, distance(i - 1, j) + 1, distance(i, j - 1) + 1)

    return distance(len(first), len(second))


@settings(max_examples=150, deadline=None)
@given(labels, labels)
def test_the_edit_distance_is_the_textbooks(first, second):
    assert edit_distance(first, second) == recursive_distance(tuple(first), tuple(second))


def test_the_edit_score_sees_order_and_not_duration():
    truth = np.repeat([0, 1, 2], [10, 50, 5])
    assert edit_score(truth, np.repeat([0, 1, 2], [1, 1, 63])) == 1
    # 0 1 0 1 2 against 0 1 2: two segments too many of five.
    assert edit_score(truth, np.repeat([0, 1, 0, 1, 2], [10, 20, 2, 28, 5])) == pytest.approx(1 - 2 / 5)


def test_segments_are_runs():
    found = segments(np.array([3, 3, 1, 3]))
    assert (found.start.tolist(), found.end.tolist(), found.label.tolist()) == ([0, 2, 3], [2, 3, 4], [3, 1, 3])


def test_f1_at_k_by_hand():
    truth = np.repeat([0, 1], [10, 10])
    prediction = np.repeat([0, 1, 0, 1], [4, 2, 4, 10])
    # 0 at 0-4: IoU 0.4; 1 at 4-6: none; 0 at 6-10: IoU 0.4; 1 at 10-20: IoU 1.
    assert matched_segments(truth, prediction, 0.10).tolist() == [2, 2, 0]
    assert matched_segments(truth, prediction, 0.25).tolist() == [2, 2, 0]
    assert matched_segments(truth, prediction, 0.50).tolist() == [1, 3, 1]
    scores = score_segments({"v": truth}, {"v": prediction}, 2)
    assert scores["f1@10"] == pytest.approx(4 / 6)
    assert scores["f1@50"] == pytest.approx(2 / 6)


def test_an_iou_at_the_threshold_counts():
    assert matched_segments(np.repeat([0, 1], [5, 5]), np.zeros(10, int), 0.5).tolist() == [1, 0, 1]


def test_edit_is_averaged_over_videos_and_f1_pools_their_segments():
    truths = {"a": np.repeat([0, 1], 5), "b": np.repeat([0, 1, 2, 3], 5)}
    predictions = {"a": np.repeat([0, 1], 5), "b": np.zeros(20, int)}
    scores = score_segments(truths, predictions, 4)
    assert scores["edit"] == pytest.approx(np.mean([1, 1 / 4]))
    # a: 2 hits; b: its only segment covers a quarter of the video: a hit at 10 and 25, none at 50.
    assert scores["f1@25"] == pytest.approx(2 * 3 / (2 * 3 + 0 + 3))
    assert scores["f1@50"] == pytest.approx(2 * 2 / (2 * 2 + 1 + 4))
    assert score_segments({"b": truths["b"]}, {"b": predictions["b"]}, 4)["f1@50"] == 0


@settings(max_examples=80, deadline=None)
@given(labels.flatmap(lambda t: st.tuples(st.just(t), st.permutations(t.tolist()).map(np.array))))
def test_segmental_scores_are_fractions_and_one_for_the_truth(pair):
    truth, prediction = pair
    assert 0 <= edit_score(truth, prediction) == edit_score(prediction, truth) <= 1
    f1 = [f1_of(matched_segments(truth, prediction, threshold)) for threshold in (0.1, 0.25, 0.5)]
    assert 1 >= f1[0] >= f1[1] >= f1[2] >= 0
    assert edit_score(truth, truth) == f1_of(matched_segments(truth, truth, 0.5)) == 1


def test_a_segment_matches_only_its_own_phase():
    assert matched_segments(np.zeros(10, int), np.ones(10, int), 0.1).tolist() == [0, 1, 1]
    # The predicted 1 overlaps most with the true 0, but its match is the true 1.
    assert matched_segments(np.repeat([0, 1], [6, 4]), np.ones(10, int), 0.25).tolist() == [1, 0, 1]
