"""What the page of a curation says: shares before and after, likeness with its thresholds, copies, a map."""

from __future__ import annotations

import numpy as np

from surgdino.curation.duplicates import Calibration
from surgdino.curation.facts import _likeness
from surgdino.curation.table import Curation
from surgdino.report.blocks import Charts, Folded, Table
from surgdino.report.gallery import Gallery
from surgdino.report.record import RunRecord
from surgdino.report.sections.curation import CurationSection


def curation(**more) -> Curation:
    """Ten frames of two recordings; the second half of each is left out as coming twice, one for it all."""
    reason = np.array(["", "", "", "comes twice", "comes twice"] * 2, object)
    values = {
        "videos": ("a", "b"),
        "operations": ("camma/1", "camma/2"),
        "video_of": np.repeat([0, 1], 5),
        "frame": np.tile(np.arange(5), 2),
        "time": np.tile(np.arange(5.0), 2),
        "group": np.array([0, 1, 2, 0, 0, 5, 6, 7, 5, 5]),
        "levels": [],
        "similarity": np.full(10, np.nan),
        "weight": np.where(reason == "", 1.0, 0),
        "reason": reason,
        "phase": np.array(["GallbladderDissection"] * 4 + ["Preparation"] + [""] * 5, object),
    }
    return Curation(**{**values, **more})


def page_of(one: Curation) -> list:
    record = RunRecord(folder=None, config={}, environment={}, model={}, rows=[], curation=one)  # type: ignore[arg-type]
    return CurationSection().of_run(record)


def tables(blocks: list) -> dict[str, Table]:
    every = [each for block in blocks for each in (block.blocks if isinstance(block, Folded) else [block])]
    return {block.heads[0]: block for block in every if isinstance(block, Table)}


def test_shares_of_operations_and_phases_before_and_after():
    found = tables(page_of(curation()))
    assert found["operation"].rows[0] == ["camma/1", "5", "3", "50.0 %", "50.0 %"]
    assert found["phase"].rows == [
        ["Gallbladder dissection", "4", "3", "80.0 %", "100.0 %"],
        ["Preparation", "1", "0", "20.0 %", "0.0 %"],
    ]
    assert found["phase"].caption.startswith("5 frames have no label")
    assert "phase" not in tables(page_of(curation(phase=None)))


def test_likeness_is_drawn_with_its_thresholds():
    likeness = _likeness(Calibration({"1 s": np.linspace(0.8, 1, 50), "another operation": np.empty(0)}))
    assert len(likeness["edges"]) == len(likeness["shares"]["1 s"]) + 1
    assert abs(sum(likeness["shares"]["1 s"]) - 1) < 1e-3
    facts = {"calibration": {"1 s": [0.8, 0.9, 1.0]}, "likeness": likeness, "thresholds": {"along": 0.912}}
    charts = [svg for block in page_of(curation(facts=facts)) if isinstance(block, Charts) for svg in block.svgs]
    assert "along 0.912" in charts[0]


def test_who_shows_the_same_is_listed():
    copies = [{"copy": "b", "of": "a", "from": 0.0, "to": 3.0}, {"copy": "b", "of": "a", "from": 4.0, "to": 8.0}]
    assert tables(page_of(curation(facts={"copies": copies})))["recording"].rows == [["b", "a", "7"]]


def test_a_strip_shows_what_stands_for_what():
    pictures = Gallery(curation(), lambda at: np.full((9, 16, 3), at, np.uint8), np.arange(10))
    blocks = pictures.of_run(None)  # type: ignore[arg-type]
    strips = [[each.caption for each in block.pictures] for block in blocks if hasattr(block, "pictures")]
    assert strips[1:] == [["a 0 s", "a 3 s", "a 4 s"], ["b 0 s", "b 3 s", "b 4 s"]]
    there = np.where(np.arange(10) < 5, np.arange(10), -1)  # the second recording is gone
    blocks = Gallery(curation(), pictures.read, there).of_run(None)  # type: ignore[arg-type]
    assert [[each.caption for each in block.pictures] for block in blocks if hasattr(block, "pictures")][1:] == strips[
        1:2
    ]
