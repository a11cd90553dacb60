"""CholecT45, the older release: images in `data/`, four text files a video, no header and no phases."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from surgdino.datasets.card import load_card
from surgdino.datasets.manifest import Manifest, Problem
from surgdino.datasets.open import open_dataset
from surgdino.datasets.synthetic.cholect50 import write_cholect50
from surgdino.datasets.triplets import TASKS

CARD = load_card("cholect45")
FRAMES = 10


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("cholect45")
    write_cholect50(root, (1, 79), frames=FRAMES, size=(48, 32), layout="cholect45")
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(made, tmp_path / "set"))


def opened(root: Path, **how) -> Manifest:
    return open_dataset(CARD, root, **how)


def told(manifest: Manifest) -> list[Problem]:
    return [p for p in manifest.problems if "videos are not here" not in p.message]


def edit(path: Path, row: int, text: str) -> None:
    rows = path.read_text().splitlines()
    rows[row - 1] = text
    path.write_text("\n".join(rows) + "\n")


def test_four_files_are_one_videos_labels(made):
    manifest = opened(made)
    assert told(manifest) == []
    assert [(v.id, v.operation) for v in manifest.videos] == [("VID01", "demo/1"), ("VID79", "demo/79")]
    assert list(manifest.labels) == list(TASKS), "this release has no phases"
    assert [len(labels.classes) for labels in manifest.labels.values()] == [100, 6, 10, 15]
    assert list(manifest.labels["triplet"].values["VID79"]) == list(range(FRAMES))


def test_both_releases_say_the_same_of_the_same_operation(made, tmp_path):
    write_cholect50(tmp_path, (79,), frames=FRAMES, size=(48, 32))
    newer = open_dataset(load_card("cholect50"), tmp_path).labels
    older = opened(made).labels
    for task in TASKS:
        assert np.array_equal(newer[task].values["VID79"].array, older[task].values["VID79"].array)


def test_windows_line_ends_and_spaces_are_borne(root):
    for path in root.glob("*/VID*.txt"):
        path.write_text(path.read_text().replace("\n", " \r\n").replace(",", ", "))
    assert told(opened(root)) == []


@pytest.mark.parametrize(
    ("text", "message", "place", "expected", "found"),
    [
        ("2,0,0", "wrong number of columns", "row 3", "7, separated by commas", 3),
        ("1,0,0,0,0,0,0", "the frame numbers do not ascend", "row 3", "more than 1", "1"),
        ("2,0,0,2,0,0,0", "neither 0 nor 1", "row 3, hook", "0 or 1", "'2'"),
        ("2,0,0,-1,0,0,0", "neither 0 nor 1", "row 3, hook", "0 or 1", "'-1'"),
        ("a,0,0,0,0,0,0", "not a frame number", "row 3", "a frame number in the first column, and no header", "'a'"),
        ("", "wrong number of columns", "row 3", "7, separated by commas", 1),
    ],
)
def test_a_faulty_row_is_named_and_the_rows_before_it_stay(root, text, message, place, expected, found):
    file = root / "instrument/VID01.txt"
    edit(file, 3, text)
    (problem,) = opened(root).errors
    assert (problem.message, problem.file, problem.place) == (message, file, place)
    assert (problem.expected, problem.found) == (expected, found)
    assert list(opened(root).labels["instrument"].values["VID01"]) == [0, 1]


def test_a_header_is_not_expected(root):
    file = root / "verb/VID01.txt"
    file.write_text("frame," + ",".join(CARD.verbs) + "\n" + file.read_text())
    assert opened(root).errors[0].message == "not a frame number"


def test_an_empty_file_and_a_missing_one(root):
    (root / "target/VID01.txt").write_text("")
    (root / "verb/VID79.txt").unlink()
    assert sorted(p.message for p in opened(root).errors) == ["VID79 has no verb labels", "the file is empty"]


def test_files_of_one_video_that_disagree(root):
    rows = (root / "verb/VID01.txt").read_text().splitlines()
    (root / "verb/VID01.txt").write_text("\n".join(rows[:-1]))
    shown = next(r for r, row in enumerate((root / "triplet/VID79.txt").read_text().splitlines()) if ",1" in row)
    edit(root / "instrument/VID79.txt", shown + 1, f"{shown},0,0,0,0,0,0")
    messages = {p.message: p for p in told(opened(root))}
    assert messages["other frames than the triplets'"].found == f"{FRAMES - 1} frames"
    assert messages["a triplet without its instrument, in 1 row"].severity == "warning"


def test_rows_beyond_the_last_image(root):
    (root / f"data/VID01/{FRAMES - 1:06d}.png").unlink()
    (problem,) = told(opened(root))
    assert (problem.message, problem.place) == ("1 annotations without an image", f"frame {FRAMES - 1}")


def test_dictionaries_that_number_otherwise(root):
    file = root / "dict/verb.txt"
    file.write_text(file.read_text().replace("0:grasp\n", "0:retract\n"))
    (problem,) = told(opened(root))
    assert problem.message == "ids are numbered otherwise than on the card"
    assert (problem.file, problem.place, problem.expected, problem.found) == (file, "line of id 0", "grasp", "retract")
