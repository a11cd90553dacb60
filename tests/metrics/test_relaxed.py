"""Relaxed phase metrics: the M2CAI script's reading with its two slips, by hand, and the corrected one beside it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surgdino.errors import SurgdinoError
from surgdino.metrics.phase import relaxed_counts, script_measures, strict_counts
from surgdino.metrics.relaxed import TOLERANCES, relax
from tests.metrics.phase_scores import score_phases

CHOLEC80 = TOLERANCES["cholec80"]
PHASES = [f"phase{p}" for p in range(7)]


def counts(truth: list[int], prediction: list[int], reading: str, window: int = 2):
    sides = {"v": np.array(truth)}, {"v": np.array(prediction)}
    return relaxed_counts(*sides, 7, fps=1.0, seconds=window, tolerance=CHOLEC80, reading=reading)


def accuracy(c) -> float:
    return float(c.correct[0] / c.frames[0])


LATE = [0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 0, 1, 1, 1]


def test_the_script_counts_a_late_transition_for_both_phases_and_passes_one():
    c = counts(*LATE, "script")
    assert accuracy(c) == 1
    # The forgiven frame is predicted 0 and truly 1, so it is in both unions: recall 5/4 = 125 %, precision 4/3.
    assert c.true_positive[0, :2].tolist() == [5, 4]
    assert c.present[0, :2].tolist() == [4, 4]
    assert c.predicted[0, :2].tolist() == [5, 3]
    measures = script_measures(c)
    assert [measures[name][0, :2].tolist() for name in ("precision", "recall", "jaccard")] == [[1, 1]] * 3


def test_the_corrected_reading_counts_it_once():
    c = counts(*LATE, "corrected")
    assert accuracy(c) == 1
    assert c.true_positive[0, :2].tolist() == c.present[0, :2].tolist() == c.predicted[0, :2].tolist() == [4, 4]


EARLY = [0, 0, 0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]


def test_the_script_does_not_forgive_an_early_transition_though_it_means_to():
    c, strict = counts(*EARLY, "script"), strict_counts({"v": np.array(EARLY[0])}, {"v": np.array(EARLY[1])}, 7)
    assert accuracy(c) == 9 / 10
    assert {name: value[0, :2].tolist() for name, value in script_measures(c).items() if name != "f1"} == {
        "precision": [1, 4 / 5],
        "recall": [5 / 6, 1],
        "jaccard": [5 / 6, 4 / 5],
    }
    assert c.true_positive.tolist() == strict.true_positive.tolist()
    assert accuracy(counts(*EARLY, "corrected")) == 1


def test_the_script_forgives_whatever_stands_at_the_same_place_of_the_first_frames():
    truth, prediction = np.array(EARLY[0]), np.array([0, 3, 0, 0, 0, 1, 1, 1, 1, 1])
    # Early transition at the last of the last two frames -> the second of the first two, which is a wild 3.
    assert np.flatnonzero(relax(truth, prediction, CHOLEC80, 2, "script") != truth).tolist() == [5]
    assert np.flatnonzero(relax(truth, prediction, CHOLEC80, 2, "corrected") != truth).tolist() == [1]


def test_in_a_segment_no_longer_than_the_window_the_script_forgives_early_transitions_rightly():
    truth, prediction = [0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]
    c = counts(truth, prediction, "script")
    assert accuracy(c) == accuracy(counts(truth, prediction, "corrected")) == 1
    # Two right frames over no predicted one: the script's infinite precision is clipped to 1 like any above it.
    assert (c.true_positive[0, 0], c.predicted[0, 0]) == (2, 0)
    assert script_measures(c)["precision"][0, 0] == 1


def test_a_phase_absent_from_the_truth_is_undefined_in_both_readings():
    for reading in ("script", "corrected"):
        assert math.isnan(script_measures(counts(*LATE, reading))["jaccard"][0, 2])


def test_the_scripts_tables():
    late, early = CHOLEC80.late, CHOLEC80.early
    assert [set(p) & set(range(7)) for p in late] == [set(), {0}, {1}, {2}, {3}, {4, 3}, {5, 4}]
    assert [set(p) & set(range(7)) for p in early] == [{1}, {2}, {3}, {4, 5}, {5, 6}, {6}, set()]
    m2cai = TOLERANCES["m2cai16"]
    assert len(m2cai.late) == 8
    assert [{q - 1 for q in p} for p in m2cai.early[1:]] == [set(p) for p in early]


def by_frame_loops(truth: np.ndarray, prediction: np.ndarray, window: int) -> tuple[float, dict[str, np.ndarray]]:
    """The script re-derived frame by frame on differences and lists of indices, 1-based phases as in the original."""
    n = len(truth)
    difference = [int(p) - int(t) for t, p in zip(truth, prediction, strict=True)]
    start = 0
    while start < n:
        end = start
        while end + 1 < n and truth[end + 1] == truth[start]:
            end += 1
        t = min(window, end - start + 1)
        number = int(truth[start]) + 1
        late = (-1, -2) if number in (6, 7) else (-1,)
        early = (1, 2) if number in (4, 5, 6, 7) else (1,)
        for k in range(t):
            if difference[start + k] in late:
                difference[start + k] = 0
        meant = [difference[end - t + 1 + k] in early for k in range(t)]
        for k in range(t):
            if meant[k]:
                difference[start + k] = 0
        start = end + 1
    measures = {name: np.full(7, np.nan) for name in ("precision", "recall", "jaccard")}
    for phase in range(7):
        true, predicted = ({i for i in range(n) if side[i] == phase} for side in (truth, prediction))
        if true:
            hit = sum(difference[i] == 0 for i in true | predicted)
            measures["recall"][phase] = min(hit / len(true), 1)
            measures["jaccard"][phase] = hit / len(true | predicted)
            if predicted:
                measures["precision"][phase] = min(hit / len(predicted), 1)
            elif hit:
                measures["precision"][phase] = 1
    return difference.count(0) / n, measures


runs = st.lists(st.tuples(st.integers(0, 6), st.integers(1, 9)), min_size=1, max_size=8).map(
    lambda parts: np.concatenate([np.full(length, phase) for phase, length in parts])
)


@settings(max_examples=150, deadline=None)
@given(runs, st.integers(1, 6), st.integers(0, 2**31))
def test_the_scripts_reading_is_the_frame_by_frame_derivation(truth, window, seed):
    rng = np.random.default_rng(seed)
    shifted = np.roll(truth, rng.integers(-3, 4))
    prediction = np.where(rng.random(truth.size) < 0.2, rng.integers(0, 7, truth.size), shifted)
    c = counts(truth.tolist(), prediction.tolist(), "script", window)
    expected_accuracy, expected = by_frame_loops(truth, prediction, window)
    assert accuracy(c) == pytest.approx(expected_accuracy)
    measures = script_measures(c)
    for name, value in expected.items():
        np.testing.assert_allclose(measures[name][0], value)


@settings(max_examples=60, deadline=None)
@given(runs, st.integers(1, 6), st.integers(0, 2**31))
def test_the_corrected_reading_forgives_only_near_the_ends_and_never_lowers(truth, window, seed):
    prediction = np.roll(truth, np.random.default_rng(seed).integers(-4, 5))
    relaxed = relax(truth, prediction, CHOLEC80, window, "corrected")
    changed = np.flatnonzero(relaxed != prediction)
    ends = np.flatnonzero(np.diff(truth, prepend=-1, append=-1))
    assert all(min(abs(i - ends).min(), abs(i + 1 - ends).min()) < window for i in changed)
    assert (relaxed[changed] == truth[changed]).all()
    strict = score_phases({"v": truth}, {"v": prediction}, PHASES).scores
    settings = {"fps": window / 10, "tolerance": CHOLEC80}
    better = score_phases({"v": truth}, {"v": prediction}, PHASES, "phase/relaxed-corrected", **settings).scores
    assert all(better[name] >= strict[name] - 1e-12 for name in ("accuracy", "recall", "jaccard", "f1"))


def test_ten_seconds_are_counted_at_the_labels_rate():
    truth = np.repeat([0, 1], 600)
    prediction = np.roll(truth, 250)
    prediction[:250] = 0
    for fps, forgiven in ((1.0, 10), (25.0, 250)):
        scores = score_phases(
            {"v": truth}, {"v": prediction}, PHASES, "phase/relaxed-corrected", fps=fps, tolerance=CHOLEC80
        )
        assert scores.scores["accuracy"] == pytest.approx((1200 - 250 + forgiven) / 1200)


def test_a_tolerance_of_other_phases_or_no_window_is_refused():
    sides = {"v": np.array([0, 1])}, {"v": np.array([0, 1])}
    with pytest.raises(SurgdinoError, match="expected 7 phases, found 8"):
        relaxed_counts(*sides, 7, fps=1.0, tolerance=TOLERANCES["m2cai16"], reading="script")
    with pytest.raises(SurgdinoError, match="under one frame"):
        relaxed_counts(*sides, 7, fps=0.01, tolerance=CHOLEC80, reading="script")
