"""Labels against the length of their video: what verify finds, training refuses or says too."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from surgdino.datasets.card import load_card
from surgdino.datasets.held import Length, held_against
from surgdino.datasets.manifest import FrameLabels, Labels, SecondLabels, SegmentLabels, Video
from surgdino.datasets.open import open_dataset
from surgdino.errors import SurgdinoError
from surgdino.frames.store import StoreSettings, build_store
from surgdino.inputs.labelled import labelled_parts
from surgdino.runs.names import Pseudonyms

LENGTH = Length(600, 60.0)  # ten frames a second


def test_training_refuses_what_verify_refuses(synthetic_cholec80, tmp_path, capsys):
    videos = tmp_path / "ours"
    videos.mkdir()
    shutil.copy(synthetic_cholec80 / "videos/video01.mp4", videos)
    for unit, last in (("second", 12), ("frame", 60), ("second", 30)):
        rows = "".join(f"{k},a\n" for k in range(last))
        (videos / "labels.csv").write_text(f"{unit},label\n{rows}")
        manifest = open_dataset(load_card("folder"), videos, split={"train": ["video01"]})
        store = build_store(manifest, tmp_path / "store", StoreSettings.of(), workers=1, progress=False)
        if last == 30:
            with pytest.raises(SurgdinoError, match=r"video01\.mp4: 17 phase labels lie beyond the video's end"):
                labelled_parts(manifest, store, "phase", ("train",), Pseudonyms())
        else:
            assert len(labelled_parts(manifest, store, "phase", ("train",), Pseudonyms())["train"]) in (12, 3)
            said = capsys.readouterr().out
            assert ("labels end long before the video does" in said) == (unit == "frame")
            assert f"{12 if last == 12 else 3} of 12 frames labelled" in said


def found(tmp_path, values):
    (tmp_path / "op.mp4").write_bytes(b"x")
    video = Video("op", "d/op", tmp_path / "op.mp4")
    problems = list(held_against(video, LENGTH, Labels("phase", ("a",), {"op": values})))
    return problems[0] if problems else None


def frames(last: int) -> FrameLabels:
    return FrameLabels(np.arange(last + 1), np.zeros(last + 1, int))


def seconds(*moments: float) -> SecondLabels:
    return SecondLabels(np.array(moments), np.zeros(len(moments), int))


def segment(start: float, end: float, *, by_frame: bool = False) -> SegmentLabels:
    return SegmentLabels(np.array([start]), np.array([end]), np.zeros(1, int), by_frame=by_frame)


@pytest.mark.parametrize(
    "values",
    [
        *(frames(599), frames(400), seconds(*range(61)), segment(0, 61.5), segment(0, 40), segment(10, np.inf)),
        *(segment(0, 615, by_frame=True), segment(0, np.inf, by_frame=True)),
    ],
)
def test_labels_that_fit(tmp_path, values):
    assert found(tmp_path, values) is None


@pytest.mark.parametrize(
    ("values", "severity", "said"),
    [
        (frames(600), "error", "1 phase label lies beyond the video's end"),
        (seconds(0, 60, 120), "error", "1 phase label lies beyond the video's end"),
        (segment(0, 75), "error", "1 phase segment ends long after the video does"),
        (segment(0, 700, by_frame=True), "error", "1 phase segment ends long after the video does"),
        (frames(100), "warning", "the phase labels end long before the video does"),
    ],
)
def test_labels_that_do_not(tmp_path, values, severity, said):
    problem = found(tmp_path, values)
    assert problem is not None
    assert (problem.severity, problem.message) == (severity, said)


@pytest.mark.parametrize(
    ("values", "unit"),
    [
        *((frames(59), "seconds"), (segment(0, 60_000), "milliseconds"), (seconds(*range(600)), "frames")),
        *((segment(0, 60, by_frame=True), "seconds"), (seconds(*range(0, 60_000, 1000)), "milliseconds")),
    ],
)
def test_another_unit_is_named(tmp_path, values, unit):
    problem = found(tmp_path, values)
    assert problem is not None
    assert problem.fix is not None
    assert f"the numbers look like {unit}" in problem.fix
    assert len(str(SurgdinoError("x", fix=problem.fix)).splitlines()) == 1
