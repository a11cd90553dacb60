"""Clips and their table: what is read, and one line for what is amiss."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from surgdino.datasets.card import load_card
from surgdino.datasets.open import open_dataset
from surgdino.errors import SurgdinoError
from surgdino.frames.store import StoreSettings, build_store
from surgdino.tasks.labelled_frames import labelled_frames
from tests.datasets.clips import LABELS, write_clips


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    return write_clips(tmp_path_factory.mktemp("clips") / "set", columns="file,label,operation,split")


def opened(root: Path, split: str | None = None, **options):
    return open_dataset(load_card("clips"), root, split=split, options=options)


def test_every_frame_of_a_clip_has_its_label(clips, tmp_path):
    manifest = opened(clips, "official")
    assert not manifest.problems
    assert len(manifest.operations) == 2
    assert Counter(video.split for video in manifest.videos) == {"train": 6, "test": 6}
    store = build_store(manifest, tmp_path / "store", StoreSettings.of(fps=2, short_side=32), workers=1, progress=False)
    frames = labelled_frames(manifest, store, "clip")
    assert len(frames) == 12 * 3
    for place, video in enumerate(frames.videos):
        found = frames.targets[frames.span(place)]
        assert set(found.tolist()) == {LABELS.index(video.rpartition("/")[2].partition("_")[0])}


@pytest.mark.parametrize("name", ["OP0/cut_0.mp4", "OP0/cut_0", "only", "only.mp4"])
def test_clips_are_known_by_path_or_name(name, tmp_path, clips):
    shutil.copytree(clips, tmp_path / "set")
    (tmp_path / "set" / "OP1" / "cut_0.mp4").rename(tmp_path / "set" / "only.mp4")
    (tmp_path / "set" / "labels.csv").write_text(f"Clip;Action\n{name};cut\n")
    (video,) = opened(tmp_path / "set").videos
    assert video.id == ("only" if "only" in name else "OP0/cut_0")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("file,label\nOP9/cut_0.mp4,cut\n", "a row names no clip"),
        ("file,label\ncut_0,cut\n", "a row names no clip"),  # in both operations
        ("file,label\n../set/only.mp4,cut\n", "a row names no clip"),
        ("file,label\nOP0/cut_0.mp4,cut\nOP0/cut_0,cut\n", "a second row of a clip"),
        ("file,label\nOP0/cut_0.mp4,\nOP1/cut_0.mp4,cut\n", "a row without a label"),
        ("file,label,split\nOP0/cut_0.mp4,cut,teach\nOP1/cut_0.mp4,cut,train\n", "no part of a split"),
        ("name,label\nOP0/cut_0.mp4,cut\n", "no column file"),
        ("file,verb\nOP0/cut_0.mp4,cut\n", "no column label"),
        ("", "no column file"),
        (None, "which table has the classes?"),
    ],
)
def test_a_table_at_fault_gives_one_line(text, expected, tmp_path, clips):
    shutil.copytree(clips, tmp_path / "set")
    (tmp_path / "set" / "labels.csv").unlink()
    if text is not None:
        (tmp_path / "set" / "labels.csv").write_text(text)
    try:
        (line,) = [problem.error().line() for problem in opened(tmp_path / "set").errors]
    except SurgdinoError as error:
        line = error.line()
    assert expected in line
    assert "\n" not in line
