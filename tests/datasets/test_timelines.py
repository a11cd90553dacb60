"""Phases as Label Studio (timelines) and CVAT (tags on frames) export them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from surgdino.datasets.card import load_card
from surgdino.datasets.open import open_dataset
from surgdino.errors import SurgdinoError

CARD = load_card("folder")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        (tmp_path / f"{name}.mp4").write_bytes(name.encode() * 100)
    return tmp_path


def ranges(*found: tuple[int, int, str]) -> list[dict]:
    return [
        {"type": "timelinelabels", "value": {"ranges": [{"start": s, "end": e}], "timelinelabels": [label]}}
        for s, e, label in found
    ]


def task(video: str, *found: tuple[int, int, str], **more) -> dict:
    return {"id": 1, "data": {"title": "x", "video": video}, "annotations": [{"result": ranges(*found)}], **more}


def test_timelines_are_phases_by_frame(root):
    a = task("/data/upload/1/0a1b2c3d-a.mp4", (1, 50, "access"), (51, 100, "closure"))
    b = task("/data/local-files/?d=films%2Fb.mp4", (11, 60, "access"))
    (root / "project-1.json").write_text(json.dumps([a, b]))
    manifest = open_dataset(CARD, root)
    assert manifest.problems == ()
    assert manifest.notes == ("project-1.json: 3 segments, frames, 2 of 2 videos",)
    labels = manifest.labels["phase"]
    present, ids = labels.values["a"].at(np.array([0, 49, 50, 99, 100]))
    assert present.tolist() == [True] * 4 + [False]
    assert [labels.classes[i] for i in ids[:4]] == ["access", "access", "closure", "closure"]
    assert labels.values["b"].at(np.array([9, 10, 59, 60]))[0].tolist() == [False, True, True, False]


def test_the_small_form_and_the_file_that_the_user_names(root):
    rows = [{"ranges": [{"start": 1, "end": 9}], "timelinelabels": ["access"]}]
    (root / "x.json").write_text(json.dumps([{"video": "/data/upload/1/0a1b2c3d-a.mp4", "id": 5, "phases": rows}]))
    manifest = open_dataset(CARD, root, options={"labels": "x.json"})
    assert list(manifest.labels["phase"].values) == ["a"]


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (task("c.mp4", (1, 5, "x")), "unknown video"),
        (task("a.mp4", (9, 5, "x")), "a segment that ends before it starts"),
        (task("a.mp4", (None, 5, "x")), "not a frame"),
        (task("a.mp4", (1, 5, "")), "no label"),
        (task("a.mp4", (1, 50, "x"), (20, 60, "y")), "segments that overlap"),
    ],
)
def test_what_cannot_be_used_is_named(root, found, said):
    (root / "p.json").write_text(json.dumps([found, task("b.mp4", (1, 5, "x"))]))
    manifest = open_dataset(CARD, root)
    assert "phase" in manifest.labels
    assert said in [problem.message for problem in manifest.errors]


def test_rectangles_on_a_video_are_no_masks(root):
    value = {"framesCount": 100, "duration": 4, "sequence": [{"frame": 1, "x": 1}], "labels": ["x"]}
    found = {
        "id": 1,
        "data": {"video": "a.mp4"},
        "annotations": [{"result": [{"type": "videorectangle", "value": value}]}],
    }
    (root / "p.json").write_text(json.dumps([found]))
    problems = [problem.error().line() for problem in open_dataset(CARD, root).problems]
    assert any("shapes that are no masks are left out" in line and "videorectangle" in line for line in problems)
    with pytest.raises(SurgdinoError, match="not a table of phases"):
        open_dataset(CARD, root, options={"labels": "p.json"})


def test_tags_of_cvat_are_phases_of_moments(root):
    def image(number: int, label: str) -> str:
        name = f"frame_{number:06d}"
        return f'<image id="{number}" name="{name}" width="4" height="3"><tag label="{label}" source="manual"/></image>'

    meta = "<meta><task><id>1</id><source>b.mp4</source></task></meta>"
    images = "".join(image(25 * n, "access" if n < 3 else "closure") for n in range(6))
    (root / "tags.xml").write_text(f"<annotations>{meta}{images}</annotations>")
    manifest = open_dataset(CARD, root)
    assert "tags.xml: 6 labelled moments, frames, 1 of 2 videos" in manifest.notes
    assert list(manifest.labels) == ["phase"]
    assert dict(manifest.labels["phase"].values["b"]) == {0: 0, 25: 0, 50: 0, 75: 1, 100: 1, 125: 1}
