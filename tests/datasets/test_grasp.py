"""GraSP: labels of pictures by their names, folds from the files, and what is wrong in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from surgdino.datasets.card import load_card
from surgdino.datasets.manifest import Manifest
from surgdino.datasets.open import open_dataset
from surgdino.datasets.synthetic.workflow import write_grasp

TRAIN = "annotations/grasp_long-term_train.json"


def told(manifest: Manifest) -> list[str]:
    return [problem.error().line() for problem in manifest.problems if "not here" not in problem.message]


def test_the_layout_is_read_as_it_was_written(tmp_path):
    truths = write_grasp(tmp_path)
    manifest = open_dataset(load_card("grasp"), tmp_path, split="official")
    assert told(manifest) == []
    assert manifest.operations == ("grasp/1", "grasp/2", "grasp/41")
    assert [video.split for video in manifest.videos] == ["train", "train", "test"]
    for kind, labels in manifest.labels.items():
        for video, truth in truths.items():
            assert labels.values[video].array.tolist() == truth[kind].tolist()
            assert labels.values[video].numbers.tolist() == [0, 1, 2, 3]
    fold = open_dataset(load_card("grasp"), tmp_path, split="fold1")
    assert {video.id: video.split for video in fold.videos} == {"CASE001": "test", "CASE002": "train", "CASE041": None}


def changed(rows: list[dict], **values: object) -> list[dict]:
    return [{**rows[0], **values}, *rows[1:]]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"phases": 11},
            "annotations[0]: 1 rows that are not a picture's phase and step; expected CASE001/00001.jpg",
        ),
        ({"image_name": "x.jpg"}, "1 rows that are not a picture's phase and step"),
        ({"steps": "two"}, "steps"),
        ({"phases": 5}, "CASE001/0: two labels for one picture"),
        ({"image_name": "CASE001/00099.jpg"}, "1 labels without a picture, the first is 99"),
    ],
)
def test_what_is_wrong_is_one_line(change, said, tmp_path):
    write_grasp(tmp_path)
    content = json.loads((tmp_path / TRAIN).read_text())
    content["annotations"] = changed(content["annotations"], **change)
    (tmp_path / TRAIN).write_text(json.dumps(content))
    assert any(said in line for line in told(open_dataset(load_card("grasp"), tmp_path))), said


def test_other_names_are_told_and_pictures_alone_are_enough(tmp_path):
    write_grasp(tmp_path)
    content = json.loads((tmp_path / TRAIN).read_text())
    content["phases_categories"][3]["name"] = "Something"
    (tmp_path / TRAIN).write_text(json.dumps(content))
    assert any(
        "phase 3 has another name than in the card" in line for line in told(open_dataset(load_card("grasp"), tmp_path))
    )
    for path in tmp_path.glob("annotations/*"):
        Path(path).unlink()
    manifest = open_dataset(load_card("grasp"), tmp_path)
    assert [problem.message for problem in manifest.problems if "not here" not in problem.message] == [
        "no phase annotations"
    ]
