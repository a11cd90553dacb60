"""Numbers of thousands of digits, and lists without end, wherever a label file, a card or a split may have them."""

from __future__ import annotations

from pathlib import Path

import pytest

from surgdino.datasets.card import expand, load_card, stride
from surgdino.datasets.open import open_dataset
from surgdino.datasets.triplet_files import read_flags
from surgdino.datasets.triplets import check_tables
from surgdino.errors import SurgdinoError

LONG = "9" * 5000


@pytest.mark.parametrize("number", [LONG, "9" * 30, "-1", "1e9", "0x1"])
def test_flags_by_frame(tmp_path: Path, number):
    (tmp_path / "x.txt").write_text(f"0,1\n{number},0\n2,1\n")
    table, (problem,) = read_flags(tmp_path / "x.txt", ("a",))
    assert (table.tolist(), problem.place) == ([[0, 1]], "row 2")
    assert len(problem.error().line()) < 400


def test_tables_of_a_release(tmp_path: Path):
    (tmp_path / "label_mapping.txt").write_text(f"{LONG},0,0,0,0,0\n")
    (tmp_path / "dict").mkdir()
    (tmp_path / "dict/verb.txt").write_text(f"{LONG}:cut\n")
    assert check_tables(tmp_path, load_card("cholect50"))[0].place == "row 1"


def test_lists_of_videos():
    assert expand([LONG, "1-3"]) == (LONG, 1, 2, 3)
    assert stride(f"every {LONG}th") is None
    with pytest.raises(SurgdinoError, match="a range of too many videos"):
        expand(["1-999999999"])


@pytest.mark.parametrize("time", [f"{LONG}:00:00", f"0:{LONG}", f"00:00:00:{LONG}", LONG, f"0.{LONG}", f"{LONG},5"])
def test_times(tmp_path: Path, time):
    (tmp_path / "a.mp4").write_bytes(b"x")
    (tmp_path / "labels.csv").write_text(f"label;start\na;{time}\n")
    assert len(open_dataset(load_card("folder"), tmp_path).errors) == (not time.startswith("0."))
