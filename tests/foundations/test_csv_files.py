"""No cell of a table of ours is run by the spreadsheet that opens it, and each reads back as it was meant."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest

from surgdino.csv_files import as_meant, harmless, write_csv
from surgdino.datasets.adapters.imagenet import _solution
from surgdino.datasets.files import read_cells
from surgdino.datasets.label_rows import LabelRows
from surgdino.errors import SurgdinoError
from surgdino.report.examples import read_scored
from surgdino.tasks.phase.files import read_phase, write_phase
from surgdino.tasks.vqa.files import _table

FORMULAS = ["=1+1", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", '=HYPERLINK("http://x")', "＝1+1"]


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_is_text_and_reads_back(text):
    assert harmless(text) == f"'{text}"
    assert as_meant(harmless(text)) == text


@pytest.mark.parametrize("text", ["", "-0.25", "+3", "-inf", "1e-5", "Calot's triangle", "'quoted'", "a=b", "0001"])
def test_numbers_and_names_stay_as_they_are(text):
    assert as_meant(harmless(text)) == harmless(text) == text


def test_every_text_of_a_table_goes_through_the_gate(tmp_path):
    write_csv(tmp_path / "t.csv", ["frame", "=cmd"], iter([(1, "@x"), (-2, -0.5)]))
    with (tmp_path / "t.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["frame", "'=cmd"], ["1", "'@x"], ["-2", "-0.5"]]


def test_phases_named_like_formulas_are_scored_as_before(tmp_path):
    classes = ["=one", "-two", "three"]
    path = write_phase(tmp_path, "video", np.arange(3), np.array([0, 1, 2]), classes)
    assert "\t=" not in path.read_text()
    frames, phases = read_phase(path, classes)
    assert (frames.tolist(), phases.tolist()) == ([0, 1, 2], [0, 1, 2])


READERS = {
    "classes of pictures": lambda path: list(_solution(path)),
    "cells": read_cells,
    "rows of labels": LabelRows,
    "best and worst frames": read_scored,
    "questions": lambda path: list(_table(path)),
}
STRANGE = {
    "a cell of megabytes": lambda path: path.write_text("a,b,c\n1," + "x" * (1 << 18) + ",2\n"),
    "binary": lambda path: path.write_bytes(bytes(range(256))),
    "a named pipe": os.mkfifo,
    "a folder": Path.mkdir,
}


@pytest.mark.parametrize("make", STRANGE.values(), ids=STRANGE)
@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_a_table_that_is_none_is_told_in_a_line(tmp_path, read, make):
    make(tmp_path / "t.csv")
    with pytest.raises(SurgdinoError, match=r"t\.csv"):
        read(tmp_path / "t.csv")
