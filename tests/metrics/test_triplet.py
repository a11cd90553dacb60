"""Triplet metrics: the numbers of ivtmetrics, average precision as scikit-learn's, components, challenge, own heads."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from surgdino.errors import SurgdinoError
from surgdino.metrics.average_precision import RankedScores, average_precision
from surgdino.metrics.triplet import (
    COMPONENTS,
    component_maximum,
    triplet_map,
)
from tests.metrics.triplet_inputs import NULL_VERB, mapping_table, recipe, score_triplets, top_k

ORACLE = json.loads((Path(__file__).parent / "triplet_ivtmetrics.json").read_text())
MAP = triplet_map(mapping_table(), null_verb=NULL_VERB)


@pytest.fixture(scope="module")
def videos() -> tuple[dict, dict]:
    return recipe()


def as_floats(values: list) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values])


@pytest.mark.parametrize(("protocol", "stored"), [("triplet/video-wise", "video_wise"), ("triplet/global", "global")])
def test_mean_ap_of_every_component_is_ivtmetrics(videos, protocol, stored):
    scores = score_triplets(*videos, MAP, protocol)
    assert list(scores.mean_ap) == list(COMPONENTS)
    assert scores.mean_ap == pytest.approx(ORACLE[stored], abs=1e-12)


def test_ap_of_every_class_is_ivtmetrics(videos):
    video_wise = score_triplets(*videos, MAP).class_ap
    for component, stored in ORACLE["video_wise_class"].items():
        np.testing.assert_allclose(list(video_wise[component].values()), as_floats(stored), atol=1e-12)
    pooled = list(score_triplets(*videos, MAP, "triplet/global").class_ap["IVT"].values())
    np.testing.assert_allclose(pooled, as_floats(ORACLE["global_class_IVT"]), atol=1e-12)
    assert 0 < np.isnan(pooled).sum() < 100, "the recipe must hold classes without a positive"


@pytest.mark.parametrize("pooling", ["video-wise", "global"])
def test_the_challenge_drops_the_six_null_triplets_after_ap(videos, pooling):
    scores = score_triplets(*videos, MAP, f"triplet/challenge-{pooling}")
    assert scores.mean_ap == pytest.approx({"IVT": ORACLE[f"challenge_{pooling.replace('-', '_')}"]}, abs=1e-12)
    assert list(scores.class_ap["IVT"]) == list(range(94))
    full = score_triplets(*videos, MAP, f"triplet/{pooling}").class_ap["IVT"]
    assert all(full[c] == ap or math.isnan(ap) for c, ap in scores.class_ap["IVT"].items())


@pytest.mark.parametrize(("component", "k"), [(c, int(k)) for c, values in ORACLE["top_k"].items() for k in values])
def test_top_k_is_ivtmetrics(videos, component, k):
    assert top_k(*videos, MAP, k=k, component=component) == pytest.approx(ORACLE["top_k"][component][str(k)], abs=1e-12)


def test_top_k_by_hand_and_without_a_positive():
    mapping = triplet_map(np.array([[0, 0, 0, 0, 0, 0], [1, 0, 0, 1, 0, 1], [2, 1, 1, 1, 11, 16]]), null_verb=9)
    truth = {"v": np.array([[1, 1, 0], [0, 0, 1]])}
    scores = {"v": np.array([[0.9, 0.1, 0.5], [0.3, 0.2, 0.1]])}
    assert top_k(truth, scores, mapping, k=1) == pytest.approx(1 / 3)
    assert top_k(truth, scores, mapping, k=2) == pytest.approx(1 / 3)
    assert top_k(truth, scores, mapping, k=3) == 1
    assert math.isnan(top_k({"v": truth["v"] * 0}, scores, mapping, k=1))


tables = st.tuples(st.integers(1, 30), st.integers(1, 4), st.integers(0, 2**31), st.sampled_from([2, 5, 1000]))


@settings(max_examples=150, deadline=None)
@given(tables)
def test_average_precision_is_scikit_learns_also_with_ties(table):
    rows, classes, seed, levels = table
    rng = np.random.default_rng(seed)
    truth = rng.random((rows, classes)) < 0.3
    scores = rng.integers(0, levels, (rows, classes)) / levels
    ours = average_precision(truth, scores)
    for c in range(classes):
        if truth[:, c].any():
            assert ours[c] == pytest.approx(average_precision_score(truth[:, c], scores[:, c]), abs=1e-12)
        else:
            assert math.isnan(ours[c])


@settings(max_examples=60, deadline=None)
@given(tables)
def test_average_precision_knows_no_order_of_frames_no_scale_and_perfection(table):
    rows, classes, seed, levels = table
    rng = np.random.default_rng(seed)
    truth = rng.random((rows, classes)) < 0.4
    scores = rng.integers(0, levels, (rows, classes)) / levels
    ours, order = average_precision(truth, scores), rng.permutation(rows)
    np.testing.assert_allclose(average_precision(truth[order], 3 * scores[order] - 7), ours)
    assert ((ours > 0) & (ours <= 1 + 1e-12) | np.isnan(ours)).all()
    perfect = average_precision(truth, truth + scores / 2.5)
    assert (np.isclose(perfect, 1) | ~truth.any(0)).all()


@settings(max_examples=40, deadline=None)
@given(tables)
def test_weighted_groups_are_repeated_rows(table):
    rows, classes, seed, levels = table
    rng = np.random.default_rng(seed)
    truth = rng.random((rows, classes)) < 0.4
    scores = rng.integers(0, levels, (rows, classes)) / levels
    group = rng.integers(0, 3, rows)
    weight = rng.integers(0, 3, group.max() + 1)
    drawn = np.repeat(np.arange(rows), weight[group])
    weighted = RankedScores(truth, scores, group).average_precision(weight)
    if drawn.size:
        np.testing.assert_allclose(weighted, average_precision(truth[drawn], scores[drawn]))
    else:
        assert np.isnan(weighted).all()


def test_components_are_the_maximum_over_the_triplets_that_share_them(videos):
    values = np.random.default_rng(0).random((5, 100))
    for column, component in enumerate(COMPONENTS[:-1], start=1):
        ids = mapping_table()[:, column]
        expected = np.stack([values[:, ids == i].max(1) for i in np.unique(ids)], 1)
        assert (component_maximum(values, component, MAP) == expected).all()
    assert [len(MAP.classes(c)) for c in COMPONENTS] == [6, 10, 15, 26, 59, 100]
    assert component_maximum(values, "IVT", MAP) is values


def test_the_null_triplets_are_the_last_six():
    assert np.flatnonzero(MAP.null).tolist() == list(range(94, 100))


def test_own_heads_take_the_place_of_the_maximum(videos):
    truths, scores = videos
    heads = {"I": {video: component_maximum(t, "I", MAP).astype(float) for video, t in truths.items()}}
    own = score_triplets(truths, scores, MAP, heads=heads)
    assert own.mean_ap["I"] == pytest.approx(1)
    assert own.mean_ap["V"] == score_triplets(truths, scores, MAP).mean_ap["V"]


def test_a_pooled_interval_resamples_whole_videos(videos):
    truths, scores = videos
    drawn = {"x": ["VID00", "VID00", "VID03"]}
    pooled = [np.concatenate([side[v] for v in drawn["x"]]) for side in (truths, scores)]
    names = list(truths)
    ranked = RankedScores(
        np.concatenate(list(truths.values())),
        np.concatenate(list(scores.values())),
        np.repeat(np.arange(4), [len(truths[v]) for v in names]),
    )
    np.testing.assert_allclose(ranked.average_precision(np.array([2, 0, 0, 1])), average_precision(*pooled))


@pytest.mark.real
def test_the_mapping_of_the_tests_is_the_datasets_own(real_data):
    rows = np.loadtxt(real_data / "cholect50" / "label_mapping.txt", delimiter=",", dtype=int, comments="#")
    assert (rows == mapping_table()).all()


ONE = np.eye(100)[:2]


@pytest.mark.parametrize(
    ("truths", "scores", "words"),
    [
        ({}, {}, "no video to score"),
        ({"v": ONE}, {"v": ONE[:1]}, "v: ground truth and score table differ in length; expected 2 frames, found 1"),
        (
            {"v": ONE},
            {"v": ONE[:, :94]},
            "v: the score table has another shape; expected [n, 100], n > 0, found [2, 94]",
        ),
        ({"v": ONE * 2}, {"v": ONE}, "v, row 0, class 0: the ground truth is not binary; expected 0 or 1, found 2.0"),
        ({"v": ONE}, {"v": ONE * np.nan}, "v, row 0, class 0: the score table holds a value that is not finite"),
        ({"v": ONE}, {"w": ONE}, "videos without prediction; found v"),
        ({"v": ONE[:0]}, {"v": ONE[:0]}, "v: the ground truth has another shape"),
    ],
)
def test_what_does_not_fit_is_told_by_video_row_and_class(truths, scores, words):
    with pytest.raises(SurgdinoError) as error:
        score_triplets(truths, scores, MAP)
    assert words in str(error.value)


def test_unknown_names_and_a_mapping_that_contradicts_itself_are_refused():
    with pytest.raises(SurgdinoError, match="triplet/global"):
        score_triplets({"v": ONE}, {"v": ONE}, MAP, "triplet/globl")
    with pytest.raises(SurgdinoError, match="unknown component"):
        score_triplets({"v": ONE}, {"v": ONE}, MAP, heads={"X": {"v": ONE}})
    table = mapping_table()
    with pytest.raises(SurgdinoError, match="out of order"):
        triplet_map(table[::-1], null_verb=NULL_VERB)
    table[0, 4] = 99
    with pytest.raises(SurgdinoError, match="IV ids contradict"):
        triplet_map(table, null_verb=NULL_VERB)
    with pytest.raises(SurgdinoError, match="another shape"):
        triplet_map(table[:, :5], null_verb=NULL_VERB)
