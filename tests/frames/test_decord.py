"""Decord reads the right frames, or is refused by name, or is killed: it never shifts a label and never hangs a run."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from surgdino.datasets.manifest import Manifest, Video
from surgdino.errors import SurgdinoError
from surgdino.frames.store import StoreSettings, build_store
from surgdino.frames.video.decode import probe, read_frames
from surgdino.frames.video.decoders import decord as decode_decord
from tests.frames.numbered_video import cut_start, number_in, rotate, write_video

pytest.importorskip("decord", reason="decord is installed on x86-64 Linux only")


@pytest.mark.parametrize("settings", [{}, {"codec": "mpeg4"}, {"times": np.cumsum(np.arange(100) % 3 + 1) * 0.04}])
def test_it_reads_the_frames_asked_for(tmp_path, settings):
    path = write_video(tmp_path / "mit Leerzeichen ü.mp4", **settings)
    info = probe(path, "decord")
    asked = [0, 7, 50, 51, 99]
    assert [number_in(f.image) for f in read_frames(path, asked, "decord", info=info)] == asked


def test_both_decoders_give_the_same_picture(tmp_path):
    path = write_video(tmp_path / "a.mp4")
    for one, other in zip(*(read_frames(path, [3, 60], backend) for backend in ("pyav", "decord")), strict=True):
        assert np.abs(one.image.astype(int) - other.image).mean() < 3


@pytest.mark.parametrize("hidden", [5, 30])
def test_a_cut_file_is_refused_by_name(tmp_path, hidden):
    path = cut_start(write_video(tmp_path / "cut.mp4", gop=25), hidden)
    with pytest.raises(SurgdinoError, match=r"cut\.mp4: decord .*expected.*found.*data\.decoder=pyav"):
        list(read_frames(path, [0, 10], "decord"))


def test_a_rotated_file_is_refused_by_name(tmp_path):
    with pytest.raises(SurgdinoError, match="rotation"):
        probe(rotate(write_video(tmp_path / "phone.mp4"), 1), "decord")


def test_a_hanging_decord_is_killed(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4")
    asleep = tmp_path / "asleep"
    asleep.write_text(f"#!{sys.executable}\nimport time\ntime.sleep(600)\n")
    asleep.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(asleep))
    monkeypatch.setattr(decode_decord, "PATIENCE", 0.5)
    with pytest.raises(SurgdinoError, match="did not answer"):
        probe(path, "decord")


def test_a_crashing_decord_is_one_line(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4")
    crash = tmp_path / "crash"
    crash.write_text(f"#!{sys.executable}\nraise SystemExit('segmentation fault')\n")
    crash.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(crash))
    with pytest.raises(SurgdinoError, match="decord failed; found segmentation fault"):
        probe(path, "decord")


def test_the_store_takes_it_by_name(tmp_path):
    path = write_video(tmp_path / "a.mp4")
    manifest = Manifest("folder", tmp_path, (Video("a", "a", path, 25.0),))
    settings = StoreSettings.of(fps=5, decoder="decord", content_crop=False)
    store = build_store(manifest, tmp_path / "store", settings, workers=1, progress=False)
    assert [number_in(store.read(i)) for i in range(len(store))] == list(range(0, 100, 5))
