"""CholecT50's layout, its validation release, and what goes wrong with a label file: named by file and place."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from surgdino.datasets.card import Card, load_card
from surgdino.datasets.manifest import Manifest, Problem
from surgdino.datasets.open import open_dataset
from surgdino.datasets.synthetic.cholect50 import write_cholect50
from surgdino.datasets.triplets import triplet_table
from surgdino.errors import SurgdinoError
from surgdino.frames.store import StoreSettings, build_store

CARD = load_card("cholect50")
PHASE = CARD.phases.index("clipping-and-cutting")


@pytest.fixture(scope="session")
def sparse_set(tmp_path_factory) -> Path:
    """Three operations as in the validation release: gaps, other sizes, images without annotation. Read-only."""
    root = tmp_path_factory.mktemp("cholect50")
    write_cholect50(root, (4, 68, 111), frames=16, size=(96, 64), sparse=True, suffix=".jpg")
    return root


def row(triplet: int, phase: int = PHASE, box: float = -1.0) -> list:
    """A row of 15 for a triplet with its own instrument, verb and target."""
    ids = triplet_table(CARD)[triplet].tolist() if triplet >= 0 else [-1] * 4
    return [triplet, ids[1], 1.0, *[box] * 4, ids[2], ids[3], 1.0, *[-1.0] * 4, phase]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """One operation with three images; adapters decode none of them."""
    folder = tmp_path / "videos" / "VID04"
    folder.mkdir(parents=True)
    for number in (0, 1, 7):
        (folder / f"{number:06d}.png").write_bytes(b"x")
    write(tmp_path, {"0": [row(17), row(60)], "1": [row(94)], "7": [row(-1)]})
    return tmp_path


def label_file(root: Path) -> Path:
    return root / "labels" / "VID04.json"


def write(root: Path, annotations: object, **more: object) -> None:
    label_file(root).parent.mkdir(exist_ok=True)
    label_file(root).write_text(json.dumps({"video": 4, "fps": 1, "annotations": annotations, **more}))


def opened(root: Path, card: Card = CARD, **how) -> Manifest:
    return open_dataset(card, root, **how)


def told(manifest: Manifest) -> list[Problem]:
    return [p for p in manifest.problems if "videos are not here" not in p.message]


def the_problem(root: Path) -> Problem:
    (problem,) = told(opened(root))
    return problem


def names(manifest: Manifest, task: str, number: int, video: str = "VID04") -> list[str]:
    labels = manifest.labels[task]
    return [labels.classes[place] for place, flag in enumerate(labels.values[video][number]) if flag]


# --- what is right -------------------------------------------------------------------------------------------------


def test_triplets_their_parts_and_the_phase(root):
    manifest = opened(root)
    assert told(manifest) == []
    assert [(v.id, v.operation, v.fps, v.is_image_folder) for v in manifest.videos] == [("VID04", "camma/4", 1.0, True)]
    assert names(manifest, "triplet", 0) == ["grasper,retract,gallbladder", "hook,dissect,gallbladder"]
    assert names(manifest, "instrument", 0) == ["grasper", "hook"]
    assert names(manifest, "verb", 0) == ["retract", "dissect"]
    assert names(manifest, "target", 0) == ["gallbladder"]
    assert manifest.labels["phase"].values["VID04"][0] == PHASE
    assert [len(manifest.labels[task].classes) for task in ("triplet", "instrument", "verb", "target", "phase")] == [
        100, 6, 10, 15, 7,
    ]  # fmt: skip


def test_an_id_of_minus_one_is_skipped_and_the_phase_stands(root):
    manifest = opened(root)
    assert [names(manifest, task, 7) for task in ("triplet", "instrument", "verb", "target")] == [[]] * 4
    assert manifest.labels["phase"].values["VID04"][7] == PHASE
    partly = row(17)
    partly[0] = partly[8] = -1
    write(root, {"0": [partly], "1": [row(17)], "7": [row(17)]})
    assert [names(opened(root), task, 0) for task in ("triplet", "instrument", "verb", "target")] == [
        [], ["grasper"], ["retract"], [],
    ]  # fmt: skip
    assert opened(root).labels["phase"].values["VID04"][0] == PHASE


def test_null_triplets_are_triplets(root):
    assert names(opened(root), "triplet", 1) == ["grasper,null_verb,null_target"]


def test_boxes_are_of_no_importance(root):
    write(root, {"0": [row(17, box=0.37)], "1": [row(94)], "7": [row(3)]})
    assert told(opened(root)) == []


def test_a_frame_with_an_empty_list_shows_no_triplet_and_has_no_phase(root):
    write(root, {"0": [], "1": [row(17)], "7": [row(17)]})
    manifest = opened(root)
    assert told(manifest) == []
    assert names(manifest, "triplet", 0) == []
    assert 0 not in manifest.labels["phase"].values["VID04"]


def test_images_without_annotation_stay_and_have_no_labels(root):
    write(root, {"7": [row(17)]})
    problem = the_problem(root)
    assert problem.severity == "warning"
    assert problem.message == "2 of 3 images have no annotation, the first is 0"
    assert list(opened(root).labels["triplet"].values["VID04"]) == [7]


def test_whole_numbers_may_be_written_with_a_point(root):
    write(root, {"0": [[float(x) for x in row(17)]], "1": [row(94)], "7": [row(3)]})
    assert told(opened(root)) == []
    assert names(opened(root), "verb", 0) == ["retract"]


def test_the_validation_release(sparse_set, tmp_path):
    """Sparse numbers, JPEG, another size in every video: labels and stored frames meet on the frame number."""
    manifest = opened(sparse_set)
    assert manifest.errors == ()
    assert [p.message for p in told(manifest)] == ["1 of 10 images have no annotation, the first is 10"] * 3
    store = build_store(manifest, tmp_path, StoreSettings.of(), workers=1, progress=False).select(flagged=True)
    for video in manifest.videos:
        rows = [i for i in range(len(store)) if store.video_id(i) == video.id]
        numbers = np.array([store.number(i) for i in rows])
        assert numbers.tolist() == [0, 3, 4, 5, 8, 9, 10, 13, 14, 15]
        present, flags = manifest.labels["triplet"].values[video.id].at(numbers)
        assert numbers[~present].tolist() == [10]
        assert flags.shape == (10, 100)


def test_generated_truth_is_what_is_read(sparse_set):
    truth = write_cholect50(sparse_set.parent / "again", (4,), frames=16, size=(96, 64), sparse=True, suffix=".jpg")[4]
    triplets = opened(sparse_set).labels["triplet"].values["VID04"]
    assert {number: np.flatnonzero(triplets[number]).tolist() for number in triplets} == truth
    assert any(truth.values())


def test_a_folder_without_labels_is_enough_for_pretraining(root):
    shutil.rmtree(root / "labels")
    manifest = opened(root)
    assert manifest.errors == ()
    assert [p.message for p in told(manifest)] == ["no triplet annotations"]
    assert manifest.labels == {}


def test_missing_videos_are_one_warning(root):
    (problem,) = [p for p in opened(root).problems if "are not here" in p.message]
    assert problem.message.startswith("49 of 50 videos are not here: 1-2, 5-6")


# --- what is wrong with a label file -------------------------------------------------------------------------------


def change(position: int, value: object) -> Callable[[list], list]:
    return lambda row: [*row[:position], value, *row[position + 1 :]]


@pytest.mark.parametrize(
    ("spoil", "message", "place", "expected", "found"),
    [
        (lambda r: r[:-1], "not an annotation", "frame 1, row 2", "15 values", "14 values"),
        (lambda r: "grasper", "not an annotation", "frame 1, row 2", "15 values", "'grasper'"),
        (change(0, 100), "not a valid triplet id", "frame 1, row 2, value 1 (triplet)", "-1 to 99", "100"),
        (change(1, 6), "not a valid instrument id", "frame 1, row 2, value 2 (instrument)", "-1 to 5", "6"),
        (change(7, -2), "not a valid verb id", "frame 1, row 2, value 8 (verb)", "-1 to 9", "-2"),
        (change(8, "liver"), "not a valid target id", "frame 1, row 2, value 9 (target)", "a whole number", "'liver'"),
        (change(14, 7), "not a valid phase id", "frame 1, row 2, value 15 (phase)", "-1 to 6", "7"),
        (change(14, 0.5), "not a valid phase id", "frame 1, row 2, value 15 (phase)", "a whole number", "0.5"),
        (change(0, None), "not a valid triplet id", "frame 1, row 2, value 1 (triplet)", "a whole number", "None"),
        (change(14, 0), "the rows name two phases", "frame 1", "clipping-and-cutting", "preparation"),
    ],
)
def test_a_faulty_row_is_named_and_its_frame_left_out(root, spoil, message, place, expected, found):
    write(root, {"0": [row(17)], "1": [row(94), spoil(row(60))], "7": [row(-1)]})
    problem = the_problem(root)
    assert (problem.severity, problem.file) == ("error", label_file(root))
    assert problem.message == message
    assert (problem.place, problem.expected, problem.found) == (place, expected, found)
    assert list(opened(root).labels["triplet"].values["VID04"]) == [0, 7]


def test_many_faults_are_told_as_the_first_and_their_count(root):
    write(root, {key: [row(17)[:-1]] for key in ("0", "1", "7")})
    errors = [p for p in told(opened(root)) if p.severity == "error"]
    assert [p.message for p in errors] == ["not an annotation; 2 more frames are at fault in this file"]


def test_parts_that_are_not_the_triplets_are_a_warning(root):
    write(root, {"0": [change(1, 4)(row(17))], "1": [row(94)], "7": [row(-1)]})
    problem = the_problem(root)
    assert problem.severity == "warning"
    assert problem.message == "instrument, verb and target are not those of triplet 17"
    assert (problem.place, problem.expected, problem.found) == ("frame 0, row 1", "0, 1, 0", "4, 1, 0")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"annotations": {"0": [}}', "Expecting value: line 1 column 24"),
        ('{"annotations":\n {"0": []', "Expecting ',' delimiter: line 2 column 10"),
        ("", "Expecting value: line 1 column 1"),
        ("[" * 100_000, ""),
        (b"\xff\xfe\x00", "can't decode"),
    ],
)
def test_a_file_that_is_not_json(root, text, found):
    label_file(root).write_bytes(text if isinstance(text, bytes) else text.encode())
    (problem,) = opened(root).errors
    assert problem.file == label_file(root)
    assert problem.message in ("not valid JSON", "nested too deeply")
    assert found in str(problem.found)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "9" * 30, "9" * 5000])
def test_numbers_that_are_no_ids(root, number):
    text = label_file(root).read_text()
    label_file(root).write_text(re.sub(r"\[\[[-\d.]+", f"[[{number}", text, count=1))
    assert opened(root).errors[0].file == label_file(root)
    label_file(root).write_text(re.sub(r'"annotations": \{"\d+"', f'"annotations": {{"{number}"', text, count=1))
    assert opened(root).errors[0].file == label_file(root)


@pytest.mark.parametrize(
    ("content", "message", "place"),
    [
        ("[]", "not a label file", None),
        ('{"video": 4, "annotation": {}}', "no annotations", "annotations"),
        ('{"annotations": [1]}', "no annotations", "annotations"),
        ('{"annotations": {"frame": []}}', "not a frame number", "annotations"),
        ('{"annotations": {"1": [], "001": []}}', "a frame is annotated twice", "annotations.001"),
        ('{"annotations": {"1": {}}}', "not a list of rows", "frame 1"),
    ],
)
def test_json_that_is_no_label_file(root, content, message, place):
    label_file(root).write_text(content)
    problem = opened(root).errors[0]
    assert (problem.message, problem.place) == (message, place)


def test_other_categories_mean_other_ids(root):
    """A release that swaps phases 4 and 6 would train without a murmur."""
    phases = {str(i): name for i, name in enumerate(CARD.phases)}
    phases["4"], phases["6"] = phases["6"], phases["4"]
    write(root, {"0": [row(17)]}, categories={"phase": phases})
    (problem,) = opened(root).errors
    assert problem.message == "ids are numbered otherwise than on the card"
    assert (problem.place, problem.expected, problem.found) == (
        "categories.phase.4", "gallbladder-packaging", "gallbladder-extraction",
    )  # fmt: skip
    assert "VID04" not in opened(root).labels.get("triplet", {})


def test_the_releases_misprint_is_read(root):
    phases = {str(i): name.replace("calot", "carlot") for i, name in enumerate(CARD.phases)}
    write(root, {"0": [row(17)], "1": [row(17)], "7": [row(17)]}, categories={"phase": phases})
    assert told(opened(root)) == []
    assert opened(root).labels["phase"].classes[1] == "calot-triangle-dissection"


def test_categories_that_count_from_one(root):
    verbs = {str(i): name for i, name in enumerate(CARD.verbs, start=1)}
    write(root, {"0": [row(17)]}, categories={"verb": verbs})
    (problem,) = opened(root).errors
    assert (problem.message, problem.expected, problem.found) == ("the ids count from 1", "grasp as 0", "grasp as 1")


def test_ids_that_count_from_one(root):
    write(root, {str(frame): [row(17, phase)] for frame, phase in zip((0, 1, 7), (1, 3, 7), strict=True)})
    problem = the_problem(root)
    assert problem.found == "7"
    assert problem.fix == "the phase ids seem to count from 1: count them from 0, as the release does"


def test_a_file_of_another_video(root):
    write(root, {"0": [row(17)], "1": [row(17)], "7": [row(17)]}, video=5)
    problem = the_problem(root)
    assert (problem.place, problem.expected, problem.found) == ("video", 4, 5)


# --- what is wrong with a folder -----------------------------------------------------------------------------------


def test_annotations_without_an_image(root):
    (root / "videos/VID04/000007.png").unlink()
    problem = the_problem(root)
    assert (problem.severity, problem.message) == ("error", "1 annotations without an image")
    assert (problem.place, problem.found) == ("frame 7", "images 0 to 1")
    assert list(opened(root).labels["triplet"].values["VID04"]) == [0, 1]


def test_a_mapping_file_of_another_release(root):
    lines = ["# IVT, I, V, T, IV, IT", *(",".join(map(str, line)) for line in triplet_table(CARD))]
    (root / "label_mapping.txt").write_text("\r\n".join(lines) + "\r\n")
    assert told(opened(root)) == []
    lines[5] = "4,0,0,3,0,3"
    (root / "label_mapping.txt").write_text("\n".join(lines))
    problem = the_problem(root)
    assert problem.message == "another triplet mapping than the card's"
    assert (problem.place, problem.expected, problem.found) == ("row 6", "4,0,0,2,0,2", "4,0,0,3,0,3")
    for text, said in (("\n".join(lines[:5]), "cut short"), ("a;b", "not a row"), ("0,0,2,1,2", "not a row")):
        (root / "label_mapping.txt").write_text(text)
        assert said in the_problem(root).message


@pytest.mark.parametrize(
    ("name", "message"),
    [("1.png", "two images have the same frame number"), ("logo.png", "the name has no frame number")],
)
def test_images_whose_names_do_not_number_them(root, name, message):
    (root / "videos/VID04" / name).write_bytes(b"x")
    problem = the_problem(root)
    assert (problem.severity, problem.message) == ("error", message)
    assert Path(problem.file).parent == root / "videos/VID04"


def test_labels_without_images_and_images_without_labels(root):
    shutil.move(root / "labels/VID04.json", root / "labels/VID05.json")
    messages = {p.message: p for p in opened(root).errors}
    assert set(messages) == {"VID04 has no triplet labels", "labels without a video"}
    assert messages["labels without a video"].expected == "videos/VID05/"


def test_an_empty_folder_a_strange_file_and_a_number_that_the_set_does_not_have(root):
    (root / "videos/VID05").mkdir()
    (root / "videos/readme.txt").write_text("x")
    (root / "videos/VID99").mkdir()
    (root / "videos/VID99/0.jpg").write_bytes(b"x")
    (root / "labels/notes.txt").write_text("x")
    messages = [p.message for p in told(opened(root))]
    assert messages.count("an unexpected file") == 2
    assert "no images in this folder" in messages
    assert "not a video of cholect50" in messages


def test_the_wrong_level_or_another_layout_altogether(root, tmp_path_factory):
    with pytest.raises(SurgdinoError, match=r"Point data\.root one level up"):
        opened(root / "videos")
    shutil.copytree(root, (outer := tmp_path_factory.mktemp("outer")) / "CholecT50")
    with pytest.raises(SurgdinoError, match=r"Point data.root at .*CholecT50"):
        opened(outer)
    with pytest.raises(SurgdinoError, match="not the layout of cholect50"):
        opened(root / "labels")


# --- the real thing ------------------------------------------------------------------------------------------------


@pytest.mark.real
def test_the_real_excerpt(real_data, tmp_path):
    manifest = opened(real_data / "cholect50", split="rdv")
    assert manifest.errors == ()
    assert {v.id: v.split for v in manifest.videos} == {"VID68": "train", "VID73": "test", "VID75": "train"}
    labels = manifest.labels["triplet"].values
    assert {video: (len(v), int(v.array.sum())) for video, v in labels.items()} == {
        "VID68": (243, 296), "VID73": (160, 178), "VID75": (120, 127),
    }  # fmt: skip
    assert len(manifest.labels["phase"].values["VID68"]) == 243
    store = build_store(
        opened(real_data / "cholect50-png"), tmp_path, StoreSettings.of(), workers=1, progress=False
    ).select(flagged=True)
    assert len(store) == 22
    present, _ = labels["VID73"].at(np.array([store.number(i) for i in range(22)]))
    assert int(present.sum()) == 21
