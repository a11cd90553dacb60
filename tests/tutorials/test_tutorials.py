"""The tutorials do what they say: every block runs, and prints what the page shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import ROOT
from tests.tutorials.page import missing, read_page, run
from tests.tutorials.stand_ins import ENDINGS, STAND_INS

PAGES = sorted(path for path in (ROOT / "docs" / "tutorials").glob("*.md") if path.stem != "index")


def test_there_are_tutorials():
    assert PAGES


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_tutorial_runs_and_prints_what_it_shows(path: Path, tmp_path: Path):
    page = read_page(path)
    values = {}
    for name, kind in page.set.items():
        values[name] = str(STAND_INS[kind](tmp_path / f"{kind}{ENDINGS.get(kind, '')}"))
    (tmp_path / "work").mkdir()
    printed = run(page, tmp_path / "work", values)
    assert len(printed) == len(page.blocks)
    for block, text in zip(page.blocks, printed, strict=True):
        line = missing(block.shown, text)
        assert line is None, f"{path.name} shows a line that is not printed:\n{line}\n$ {block.text}\n{text}"


def test_an_output_that_is_not_printed_is_found():
    printed = "backbone   runs/a/checkpoint\n  10 operations, 3.5 points\nend"
    assert missing(["backbone runs/a/checkpoint", "...", "8 operations, ... points"], printed) is None
    assert missing(["end", "8 operations, -0.1 points"], printed) == "8 operations, -0.1 points"
    assert missing(["9 videos"], printed) == "9 videos"
