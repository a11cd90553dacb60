"""Strict phase metrics: the script's averaging by hand, the macro averages as scikit-learn, and what each calls NaN."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from surgdino.errors import SurgdinoError
from surgdino.metrics.intervals import Interval, jackknife, operations_of
from surgdino.metrics.phase import (
    AVERAGES,
    PROTOCOLS,
    PhaseCounts,
    phase_counts,
    script_measures,
    strict_counts,
)
from surgdino.metrics.relaxed import TOLERANCES
from tests.metrics.phase_scores import score_phases

PHASES = ["prep", "calot", "clip", "dissect", "pack", "clean", "retract"]
RELAXED = {"fps": 1.0, "tolerance": TOLERANCES["cholec80"]}


def noisy_videos(seed: int, videos: int = 3, phases: int = 7) -> tuple[dict, dict]:
    """Phases in order with some left out, a quarter of the predictions replaced by any phase."""
    rng = np.random.default_rng(seed)
    truths, predictions = {}, {}
    for video in range(videos):
        kept = np.flatnonzero(rng.random(phases) < 0.8)
        kept = kept if kept.size else np.array([0])
        truth = np.repeat(kept, rng.integers(5, 40, size=kept.size))
        wrong = rng.random(truth.size) < 0.25
        truths[f"video{video}"] = truth
        predictions[f"video{video}"] = np.where(wrong, rng.integers(0, phases, truth.size), truth)
    return truths, predictions


def test_the_script_averages_over_videos_then_phases_by_hand():
    truths = {"a": np.array([0, 0, 0, 1, 1, 1, 1, 1]), "b": np.array([1, 1, 2, 2])}
    predictions = {"a": np.array([0, 0, 1, 1, 1, 1, 1, 2]), "b": np.array([1, 2, 2, 2])}
    scores = score_phases(truths, predictions, ["p", "q", "r"])
    # a: p 2/2, q 4/5; b: q 1/1, r 2/3. a's false r vanishes: r is not in its truth.
    assert scores.scores["precision"] == pytest.approx(np.mean([1, np.mean([4 / 5, 1]), 2 / 3]))
    assert scores.scores["recall"] == pytest.approx(np.mean([2 / 3, np.mean([4 / 5, 1 / 2]), 1]))
    assert scores.scores["jaccard"] == pytest.approx(np.mean([2 / 3, np.mean([4 / 6, 1 / 2]), 2 / 3]))
    assert scores.scores["f1"] == pytest.approx(np.mean([4 / 5, np.mean([4 / 5, 2 / 3]), 4 / 5]))
    assert scores.scores["accuracy"] == pytest.approx(np.mean([6 / 8, 3 / 4]))
    assert [row["recall"] for row in scores.per_phase.values()] == pytest.approx([2 / 3, 0.65, 1])


def test_a_phase_absent_from_the_truth_is_undefined_for_the_script_and_zero_for_macro():
    truth, prediction = {"v": np.array([0, 0, 0, 0])}, {"v": np.array([0, 0, 0, 1])}
    assert math.isnan(score_phases(truth, prediction, ["p", "q"]).per_phase["q"]["precision"])
    assert score_phases(truth, prediction, ["p", "q"]).scores["recall"] == pytest.approx(3 / 4)
    macro = score_phases(truth, prediction, ["p", "q"], "phase/video-macro")
    assert macro.per_phase["q"]["precision"] == 0
    assert macro.scores["recall"] == pytest.approx((3 / 4 + 0) / 2)


def test_precision_of_a_phase_predicted_nowhere_is_undefined_for_the_script():
    truth, prediction = {"v": np.array([0, 0, 1, 1])}, {"v": np.array([1, 1, 1, 1])}
    per_phase = score_phases(truth, prediction, ["p", "q"]).per_phase["p"]
    assert math.isnan(per_phase["precision"])
    assert (per_phase["recall"], per_phase["jaccard"], per_phase["f1"]) == (0, 0, 0)
    assert score_phases(truth, prediction, ["p", "q"]).scores["precision"] == pytest.approx(1 / 2)
    assert score_phases(truth, prediction, ["p", "q"], "phase/pooled-macro").scores["precision"] == pytest.approx(1 / 4)


@pytest.mark.parametrize("seed", range(8))
def test_pooled_macro_is_scikit_learns_on_all_frames(seed):
    truths, predictions = noisy_videos(seed)
    truth, prediction = np.concatenate(list(truths.values())), np.concatenate(list(predictions.values()))
    assert score_phases(truths, predictions, PHASES, "phase/pooled-macro").scores == pytest.approx(
        scikit_learn_macro(truth, prediction), abs=1e-12
    )


@pytest.mark.parametrize("seed", range(8))
def test_video_macro_is_the_mean_of_scikit_learns_over_videos(seed):
    truths, predictions = noisy_videos(seed)
    rows = [scikit_learn_macro(truths[video], predictions[video]) for video in truths]
    scores = score_phases(truths, predictions, PHASES, "phase/video-macro")
    assert scores.scores == pytest.approx({name: np.mean([row[name] for row in rows]) for name in rows[0]}, abs=1e-12)
    for video, row in zip(truths, rows, strict=True):
        alone = score_phases({video: truths[video]}, {video: predictions[video]}, PHASES, "phase/video-macro")
        assert alone.scores == pytest.approx(row, abs=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_the_scripts_values_per_video_and_phase_are_scikit_learns_of_one_label(seed):
    truths, predictions = noisy_videos(seed)
    measures = script_measures(strict_counts(truths, predictions, len(PHASES)))
    for row, video in enumerate(truths):
        for phase in range(len(PHASES)):
            truth, prediction = truths[video] == phase, predictions[video] == phase
            for name, function in ONE_LABEL.items():
                value = measures[name][row, phase]
                if not truth.any() or (name == "precision" and not prediction.any()):
                    assert math.isnan(value)
                else:
                    assert value == pytest.approx(function(truth, prediction, zero_division=0), abs=1e-12)


ONE_LABEL = {
    "precision": sklearn_metrics.precision_score,
    "recall": sklearn_metrics.recall_score,
    "jaccard": sklearn_metrics.jaccard_score,
    "f1": sklearn_metrics.f1_score,
}


def scikit_learn_macro(truth: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    values = {name: f(truth, prediction, average="macro", zero_division=0) for name, f in ONE_LABEL.items()}
    return {"accuracy": sklearn_metrics.accuracy_score(truth, prediction), **values}


labels = st.lists(st.integers(0, 6), min_size=1, max_size=40).map(np.array)
video_sets = st.lists(labels, min_size=1, max_size=4).flatmap(
    lambda truths: st.tuples(
        st.just({f"v{i}": truth for i, truth in enumerate(truths)}),
        st.tuples(*(st.lists(st.integers(0, 6), min_size=len(t), max_size=len(t)).map(np.array) for t in truths)).map(
            lambda predictions: {f"v{i}": prediction for i, prediction in enumerate(predictions)}
        ),
    )
)


@settings(max_examples=60, deadline=None)
@given(video_sets, st.sampled_from(sorted(PROTOCOLS)))
def test_every_score_is_a_fraction_or_undefined_and_the_order_of_videos_is_nothing(videos, protocol):
    truths, predictions = videos
    scores = score_phases(truths, predictions, PHASES, protocol, **RELAXED)
    every = [*scores.scores.values(), *(v for row in scores.per_phase.values() for v in row.values())]
    assert all(math.isnan(value) or 0 <= value <= 1 for value in every)
    turned = score_phases(dict(reversed(truths.items())), predictions, PHASES, protocol, **RELAXED)
    assert turned.scores == pytest.approx(scores.scores, nan_ok=True)


@settings(max_examples=40, deadline=None)
@given(st.lists(labels, min_size=1, max_size=4), st.sampled_from(sorted(PROTOCOLS)))
def test_a_perfect_prediction_scores_one_under_every_protocol(truths, protocol):
    videos = {f"v{i}": truth for i, truth in enumerate(truths)}
    scores = score_phases(videos, videos, PHASES, protocol, **RELAXED).scores
    assert scores == pytest.approx(dict.fromkeys(scores, 1.0))


def phase_intervals(counts: PhaseCounts, protocol: str, *, operations=None) -> dict[str, Interval]:
    average = AVERAGES[PROTOCOLS[protocol][1]]
    return jackknife(lambda rows: average(counts.select(rows)), operations_of(counts.videos, operations))


@pytest.mark.parametrize("protocol", sorted(PROTOCOLS))
def test_intervals_hold_the_scores(protocol):
    truths, predictions = noisy_videos(3, videos=6)
    counts = phase_counts(truths, predictions, 7, protocol, **RELAXED)
    intervals = phase_intervals(counts, protocol)
    scores = score_phases(truths, predictions, PHASES, protocol, **RELAXED).scores
    for name, interval in intervals.items():
        assert interval.value == pytest.approx(scores[name])
        assert interval.low <= interval.value <= interval.high
        assert interval.n == 6
    halves = {video: f"operation{number // 2}" for number, video in enumerate(truths)}
    assert phase_intervals(counts, protocol, operations=halves)["accuracy"].n == 3


A = {"v": np.array([0, 1, 1])}


@pytest.mark.parametrize(
    ("truths", "predictions", "words"),
    [
        ({}, {}, "no video to score"),
        (A, {}, "videos without prediction; found v"),
        (A, A | {"w": np.array([0])}, "videos without ground truth; found w"),
        (A, {"v": np.array([0, 1])}, "v: ground truth and prediction differ in length; expected 3 frames, found 2"),
        (A, {"v": np.array([0, 7, 1])}, "v, row 1: unknown class id in the prediction; expected 0 to 6, found 7"),
        ({"v": np.array([0, 1, -1])}, A, "v, row 2: unknown class id in the ground truth; expected 0 to 6, found -1"),
        (A, {"v": np.array([0.0, 1.0, 1.0])}, "v: the prediction holds no class ids; expected integers, found float64"),
        ({"v": np.array([], int)}, {"v": np.array([], int)}, "v: the ground truth is not one label a frame"),
        ({"v": np.zeros((3, 2), int)}, A, "v: the ground truth is not one label a frame"),
    ],
)
def test_what_does_not_fit_is_told_by_video_and_row(truths, predictions, words):
    with pytest.raises(SurgdinoError) as error:
        score_phases(truths, predictions, PHASES)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_protocol_names_the_nearest():
    with pytest.raises(SurgdinoError, match="phase/pooled-macro"):
        score_phases(A, A, PHASES, "phase/pooled-makro")


def test_a_relaxed_protocol_asks_for_the_rate():
    with pytest.raises(SurgdinoError, match="needs the labels' rate"):
        score_phases(A, A, PHASES, "phase/relaxed-script")
