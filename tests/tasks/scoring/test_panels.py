"""Panels: every number of a task, the same as the room's own functions, scikit-learn and ivtmetrics give."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from surgdino.datasets.card import load_card
from surgdino.errors import SurgdinoError
from surgdino.metrics.intervals import jackknife
from surgdino.metrics.phase import PROTOCOLS, script_scores, strict_counts
from surgdino.metrics.relaxed import TOLERANCES
from surgdino.metrics.scores import ScoreRequest, TaskScores
from surgdino.metrics.segmentation import class_means, class_table, image_scores, stacked
from surgdino.metrics.triplet import triplet_map
from surgdino.tasks import task_names
from surgdino.tasks.scoring.scoring import open_scoring
from surgdino.tasks.segmentation.tally import SegmentationTally
from tests import ROOT
from tests.metrics.phase_scores import score_phases, score_segments
from tests.metrics.triplet_inputs import NULL_VERB, mapping_table, recipe, top_k, triplet_interval

ORACLE = json.loads((ROOT / "tests" / "metrics" / "triplet_ivtmetrics.json").read_text())
PHASES = load_card("cholec80").phases
TRIPLETS = load_card("cholect50").triplets
MAP = triplet_map(mapping_table(), null_verb=NULL_VERB)


def phases(videos: int = 4, seed: int = 0) -> tuple[dict, dict]:
    rng = np.random.default_rng(seed)
    truths = {f"v{n}": np.repeat(np.arange(7), rng.integers(20, 60, 7)) for n in range(videos)}
    return truths, {v: np.roll(truth, int(rng.integers(3, 25))) for v, truth in truths.items()}


def score_task(task: str, truths: dict, predictions: dict, **more) -> TaskScores:
    return open_scoring(task).scores(ScoreRequest(truths, predictions, **more))


def own(videos) -> dict[str, str]:
    return {video: f"op/{video}" for video in videos}


def value(scores: TaskScores, name: str, protocol: str) -> float:
    return next(row.value for row in scores.table if (row.name, row.protocol) == (name, protocol))


@pytest.fixture(scope="module")
def phase_scores() -> TaskScores:
    truths, predictions = phases()
    return score_task("phase", truths, predictions, classes=PHASES, operations=own(truths), protocol="all", fps=1.0)


@pytest.fixture(scope="module")
def triplet_scores() -> TaskScores:
    truths, scores = recipe()
    return score_task(
        "triplet",
        truths,
        scores,
        classes=TRIPLETS,
        operations=own(truths),
        protocol="all",
        mapping=MAP,
        heads={"I": {v: np.maximum(s[:, :6], 0) for v, s in scores.items()}},
    )


@pytest.mark.parametrize("protocol", sorted(PROTOCOLS))
def test_phase_rows_are_the_protocols_own_numbers(phase_scores, protocol):
    truths, predictions = phases()
    told = score_phases(truths, predictions, PHASES, protocol, fps=1.0, tolerance=TOLERANCES["cholec80"])
    for name, expected in told.scores.items():
        assert value(phase_scores, name, protocol) == pytest.approx(expected)
    table = next(table for table in phase_scores.classes if table.protocol == protocol)
    assert {p: {m: row[m] for m in told.per_phase[p]} for p, row in table.rows.items()} == told.per_phase
    assert sum(row["frames"] for row in table.rows.values()) == sum(map(len, truths.values()))


def test_pooled_phases_are_scikit_learns(phase_scores):
    truth, prediction = (np.concatenate(list(side.values())) for side in phases())
    assert value(phase_scores, "accuracy", "phase/pooled-macro") == sklearn_metrics.accuracy_score(truth, prediction)
    for name, function in (("f1", sklearn_metrics.f1_score), ("jaccard", sklearn_metrics.jaccard_score)):
        expected = function(truth, prediction, average="macro")
        assert value(phase_scores, name, "phase/pooled-macro") == pytest.approx(expected)


def test_segmental_rows_are_score_segments(phase_scores):
    expected = score_segments(*phases(), 7)
    for name, number in expected.items():
        assert value(phase_scores, name, "phase/segmental") == pytest.approx(number)


def test_a_row_has_its_operations_spread_and_no_interval_below_six():
    truths, predictions = phases(3)
    operations = {"v0": "camma/1", "v1": "camma/1", "v2": "camma/2"}
    scores = score_task("phase", truths, predictions, classes=PHASES, operations=operations, protocol="script")
    accuracy = scores.headline_row
    each = {v: float((truths[v] == predictions[v]).mean()) for v in truths}
    assert accuracy.per_operation == pytest.approx({"camma/1": (each["v0"] + each["v1"]) / 2, "camma/2": each["v2"]})
    assert accuracy.value == pytest.approx(np.mean(list(each.values())))
    assert accuracy.std == pytest.approx(np.std(list(accuracy.per_operation.values()), ddof=1))
    assert accuracy.n == scores.operations == 2
    assert np.isnan([accuracy.low, accuracy.high]).all()
    assert scores.headline == ("accuracy", accuracy.value)


def test_from_six_operations_on_a_row_has_the_jackknifes_interval():
    truths, predictions = phases(7)
    operations = {video: f"camma/{min(number, 5)}" for number, video in enumerate(truths)}
    scores = score_task("phase", truths, predictions, classes=PHASES, operations=operations, protocol="script")
    counts = strict_counts(truths, predictions, 7)
    owners = list(operations.values())
    interval = jackknife(lambda rows: script_scores(counts.select(rows)), owners, shares=["accuracy"])["accuracy"]
    row = scores.headline_row
    assert (row.low, row.value, row.high, row.n) == (interval.low, interval.value, interval.high, 6)
    assert 0 < row.low < row.value < row.high < 1


def test_the_spread_over_phases_that_the_script_prescribes_stands_beside(phase_scores):
    rows = {row.name: row for row in phase_scores.table if row.protocol == "phase/script"}
    assert rows["accuracy"].own_std_over == ""
    assert rows["jaccard"].own_std_over == "phases"
    jaccard = [row["jaccard"] for row in score_phases(*phases(), PHASES).per_phase.values()]
    assert rows["jaccard"].own_std == pytest.approx(np.std(jaccard, ddof=1))


def test_by_default_strict_and_segmental_and_all_says_what_is_left_out():
    truths, predictions = phases(2)
    case = {"classes": PHASES, "operations": own(truths)}
    assert score_task("phase", truths, predictions, **case).protocols == ["phase/script", "phase/segmental"]
    scores = score_task("phase", truths, predictions, **case, protocol="all")
    assert not any("relaxed" in protocol for protocol in scores.protocols)
    assert sum("fps" in note for note in scores.notes) == 2
    with pytest.raises(SurgdinoError, match="fps"):
        score_task("phase", truths, predictions, **case, protocol="relaxed-script")
    case["classes"] = [f"p{n}" for n in range(7)]
    with pytest.raises(SurgdinoError, match="phases of cholec80"):
        score_task("phase", truths, predictions, **case, protocol="relaxed-script", fps=1.0)


def test_gaps_forbid_the_relaxed_protocols():
    truths, predictions = phases(1)
    frames = {"v0": np.arange(len(truths["v0"]))}
    case = {"classes": PHASES, "operations": own(truths), "fps": 1.0, "protocol": "relaxed-corrected"}
    assert score_task("phase", truths, predictions, frames=frames, **case).table
    frames["v0"][-1] += 5
    with pytest.raises(SurgdinoError, match="v0 leave gaps"):
        score_task("phase", truths, predictions, frames=frames, **case)


def test_unlabelled_frames_count_on_neither_side():
    truths, predictions = phases(2)
    marked = {v: np.concatenate([truth, [-1, -1]]) for v, truth in truths.items()} | {"bare": np.array([-1])}
    padded = {v: np.concatenate([p, [3, 4]]) for v, p in predictions.items()} | {"bare": np.array([0])}
    case = {"classes": PHASES, "operations": own(marked)}
    scores = score_task("phase", marked, padded, unlabelled=-1, **case)
    assert scores.headline == score_task("phase", truths, predictions, **case).headline
    assert scores.operations == 2
    assert "bare" in scores.notes[0]


@pytest.mark.parametrize(("pooling", "stored"), [("video-wise", "video_wise"), ("global", "global")])
def test_triplet_rows_are_ivtmetrics(triplet_scores, pooling, stored):
    for component, expected in ORACLE[stored].items():
        protocol = f"triplet/{pooling}/component-maximum"
        assert value(triplet_scores, f"AP_{component}", protocol) == pytest.approx(expected, abs=1e-12)
    challenge = value(triplet_scores, "AP_IVT", f"triplet/challenge-{pooling}")
    assert challenge == pytest.approx(ORACLE[f"challenge_{pooling.replace('-', '_')}"], abs=1e-12)


def test_top_k_own_heads_and_names_of_the_components(triplet_scores):
    for k in (5, 10, 20):
        assert value(triplet_scores, f"top-{k}", "triplet/top-k") == pytest.approx(top_k(*recipe(), MAP, k=k))
    heads = [row for row in triplet_scores.table if row.protocol.endswith("own-heads")]
    assert [row.name for row in heads] == ["AP_I", "AP_I"]
    assert triplet_scores.headline[0] == "AP_IVT"
    assert triplet_scores.headline[1] == pytest.approx(ORACLE["video_wise"]["IVT"])
    card = load_card("cholect50")
    titles = {table.title: list(table.rows) for table in triplet_scores.classes}
    assert titles == {
        "instrument": list(card.instruments),
        "verb": list(card.verbs),
        "target": list(card.targets),
        "triplet": list(card.triplets),
    }


def test_triplet_intervals_are_the_rooms_own():
    truths, scores = ({f"{v}-{half}": side[v][half::2] for v in side for half in (0, 1)} for side in recipe())
    operations = own(truths)
    case = {"classes": TRIPLETS, "operations": operations, "protocol": "all", "mapping": MAP}
    table = score_task("triplet", truths, scores, **case).table
    for protocol in ("triplet/video-wise", "triplet/global"):
        expected = triplet_interval(truths, scores, MAP, protocol, operations=operations)
        name = ("AP_IVT", f"{protocol}/component-maximum")
        row = next(row for row in table if (row.name, row.protocol) == name)
        assert (row.low, row.high) == pytest.approx((expected.low, expected.high))
        assert row.low < row.value < row.high


def masks(seed: int = 0, pictures: int = 6) -> list[tuple[str, int, np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(seed)
    shape = (pictures, 2, 2, 12, 12)
    drawn = np.cumsum(np.cumsum(rng.normal(size=shape), -1), -2) > 0
    return [(f"v{n // 2}", n % 2, both[0], both[1]) for n, both in enumerate(drawn)]


def test_a_tally_is_the_means_of_its_pictures_in_any_order():
    operations = {"v0": "a", "v1": "a", "v2": "b"}
    tally, backwards = (SegmentationTally(["liver", "colon"], operations) for _ in range(2))
    for picture in masks():
        tally.add(*picture)
    for picture in masks()[::-1]:
        backwards.add(*picture)
    scores = tally.scores()
    assert scores == backwards.scores()
    images = [image_scores(truth, prediction) for _, _, truth, prediction in masks()]
    expected = class_means(stacked(images, ["liver", "colon"]), np.arange(len(images)))
    table = [row for row in scores.table if row.protocol == "segmentation/image-wise"]
    assert {row.name: row.value for row in table} == pytest.approx(expected)
    assert scores.headline == ("dice", pytest.approx(expected["dice"]))
    assert scores.classes[0].rows == class_table(images, ["liver", "colon"])
    assert {row.name: row.unit for row in table} == {"dice": "fraction", "iou": "fraction", "hd95": "pixels"}


def test_a_tally_leaves_out_what_is_not_labelled_and_hd95_if_not_asked_for():
    truth = np.array([[[1, 0]], [[1, 1]]], bool)
    prediction = np.array([[[1, 1]], [[0, 0]]], bool)
    tally = SegmentationTally(["a", "b"], hd95=False)
    tally.add("v", 0, truth, prediction, np.array([True, False]))
    scores = tally.scores()
    assert [row.name for row in scores.table] == ["dice", "iou"]
    assert scores.headline[1] == pytest.approx(2 / 3)
    assert math.isnan(scores.classes[0].rows["b"]["dice"])
    assert math.isnan(scores.table[0].low), "one operation has no interval"
    with pytest.raises(SurgdinoError, match="v, frame 0: a picture was scored twice"):
        tally.add("v", 0, truth, prediction)
    with pytest.raises(SurgdinoError, match="v, frame 1: the predicted masks are of another size"):
        tally.add("v", 1, truth, prediction[..., :1])
    valid = SegmentationTally(["a", "b"], hd95=False)
    valid.add("v", 0, truth, prediction, valid=np.array([[True, False]]))
    assert valid.scores().classes[0].rows["a"]["dice"] == 1


def test_masks_in_memory_score_as_the_tally():
    truths, predictions = {}, {}
    for video, frame, truth, prediction in masks():
        truths.setdefault(video, {})[frame] = truth
        predictions.setdefault(video, {})[frame] = prediction
    operations = own(truths)
    case = {"classes": ["liver", "colon"], "operations": operations}
    tally = SegmentationTally(["liver", "colon"], operations)
    for picture in masks():
        tally.add(*picture)
    assert score_task("segmentation", truths, predictions, **case) == tally.scores()
    blind = score_task(
        "segmentation", truths, predictions, **case, unlabelled={"v0": {0: [True, False], 1: [True, False]}}
    )
    assert blind.classes[0].rows["liver"]["images"] == 4
    del predictions["v1"][1]
    with pytest.raises(SurgdinoError, match="v1, frame 1: a picture without prediction"):
        score_task("segmentation", truths, predictions, **case)


@pytest.mark.parametrize("task", [task for task in task_names() if open_scoring(task).PROTOCOLS])
def test_every_task_names_its_protocols_and_refuses_others(task):
    assert all(protocol.startswith(f"{task}/") for protocol in open_scoring(task).PROTOCOLS)
    with pytest.raises(SurgdinoError, match=f"unknown {task} protocol"):
        score_task(task, {"v": []}, {"v": []}, classes=["a"], operations={"v": "v"}, protocol="x/y", mapping=MAP)


def test_unknown_tasks_and_missing_mappings_are_refused():
    with pytest.raises(SurgdinoError, match="'phase'"):
        score_task("phas", {}, {}, classes=[], operations={})
    with pytest.raises(SurgdinoError, match="mapping"):
        score_task("triplet", {}, {}, classes=[], operations={})
