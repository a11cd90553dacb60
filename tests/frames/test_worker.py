"""A crash or endless memory in reading one file costs that file alone, and no program from the data folder is run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from surgdino.datasets.manifest import Manifest, Video
from surgdino.errors import SurgdinoError
from surgdino.frames import pool, worker
from surgdino.frames.build import build_shard
from surgdino.frames.store import StoreSettings, build_store
from surgdino.frames.worker import CrashError, crew
from tests.frames.numbered_video import write_video

SETTINGS = StoreSettings.of(fps=5, content_crop=False)


def square(number, say):
    say(number)
    return number**2


def fail(kind, say):
    if kind == "memory":
        return bytearray(1 << 40)
    if kind == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if kind == "exit":
        os._exit(3)
    raise {"unicode": UnicodeError, "overflow": OverflowError, "native": RuntimeError}[kind](f"{kind} error")


def test_work_is_shared_out_and_what_is_said_is_heard():
    heard = []
    with crew(2) as ask:
        asked = [ask(Path("x"), square, n, hear=heard.append) for n in range(5)]
        assert [future.result() for future in asked] == [0, 1, 4, 9, 16]
    assert sorted(heard) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("kind", ["memory", "unicode", "overflow", "native", "crash", "exit"])
def test_whatever_happens_is_an_error_of_that_file_and_the_next_is_read(kind):
    with crew(1) as ask:
        bad, good = ask(Path("bad.mp4"), fail, kind), ask(Path("good.mp4"), square, 3)
        if kind in ("crash", "exit"):
            with pytest.raises(CrashError, match=r"SIGSEGV|status 3"):
                bad.result()
        else:
            with pytest.raises(SurgdinoError, match=rf"bad\.mp4.*{kind}"):
                bad.result()
        assert good.result() == 9


def test_a_process_imports_nothing_from_the_working_folder(tmp_path, monkeypatch):
    for module in ("json", "numpy", "av", "sitecustomize"):
        (tmp_path / f"{module}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    with crew(2) as ask:  # two: one may have been started before
        assert [future.result() for future in [ask(Path("x"), square, 2) for _ in range(4)]] == [4] * 4
    assert not (tmp_path / "ran").exists()


def here(say):
    return Path.cwd()


def test_a_process_that_is_used_again_works_where_its_caller_is(tmp_path, monkeypatch):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        with crew(1) as ask:
            assert ask(Path("x"), here).result() == tmp_path / name


def crash_on_hostile(task, say):
    with pool._noted(task):
        if "hostile" in task.video.id:
            os.kill(os.getpid(), signal.SIGSEGV)
        build_shard(task, lambda frames: None, lambda: None)


def died_once(task, say):
    with pool._noted(task):
        if "hostile" in task.video.id and pool._note(task).read_text().endswith('"deaths": 1}'):
            os.kill(os.getpid(), signal.SIGKILL)
        build_shard(task, lambda frames: None, lambda: None)


@pytest.fixture
def videos(tmp_path):
    first = write_video(tmp_path / "good.mp4", 20)
    paths = [first, *(Path(shutil.copy(first, tmp_path / f"{name}.mp4")) for name in ("hostile", "other", "more"))]
    return Manifest("folder", tmp_path, tuple(Video(path.stem, path.stem, path) for path in paths))


@pytest.mark.quick("1")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_crash_of_the_decoder_sets_that_video_aside_and_is_remembered(videos, tmp_path, monkeypatch, workers):
    monkeypatch.setattr(pool, "_build", crash_on_hostile)
    store = build_store(videos, tmp_path / "s", SETTINGS, workers=workers, progress=False)
    assert len(store) == 12
    assert "hostile.mp4: the process that read it died; found crashed (SIGSEGV)" in store.set_aside["hostile"]
    monkeypatch.undo()  # it would not crash now, but was found twice to
    again = build_store(videos, tmp_path / "s", SETTINGS, workers=workers, progress=False)
    assert "delete" in again.set_aside["hostile"]
    note = next((tmp_path / "s").rglob(".*.died"))
    assert json.loads(note.read_text())["deaths"] == 2
    shutil.copy(videos.videos[0].path, videos.videos[1].path)  # another file of that name is tried
    os.utime(videos.videos[1].path, (1, 1))
    assert len(build_store(videos, tmp_path / "s", SETTINGS, workers=workers, progress=False)) == 16
    assert not list((tmp_path / "s").rglob(".*.died"))


def test_a_process_that_was_killed_for_another_gets_a_second_chance(videos, tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "_build", died_once)
    store = build_store(videos, tmp_path / "s", SETTINGS, workers=2, progress=False)
    assert (len(store), store.set_aside) == (16, {})
    assert not list((tmp_path / "s").rglob(".*.died"))


def hang_on_hostile(task, say):
    with pool._noted(task):
        while "hostile" in task.video.id:
            time.sleep(0.05)
        build_shard(task, lambda frames: None, lambda: None)


def reads_on(path, seconds, say):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        path.read_bytes()
        time.sleep(0.02)
    return "done"


def test_a_decoder_that_does_not_get_on_is_ended_and_its_video_set_aside(videos, tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "SILENCE", 1.0)
    monkeypatch.setattr(pool, "_build", hang_on_hostile)
    store = build_store(videos, tmp_path / "s", SETTINGS, workers=2, progress=False)
    assert len(store) == 12
    assert "did not get on for 1 seconds and was ended" in store.set_aside["hostile"]


def test_a_slow_one_that_reads_on_is_waited_for(tmp_path, monkeypatch):
    (tmp_path / "x").write_bytes(b"0" * 100)
    monkeypatch.setattr(worker, "SILENCE", 0.2)
    with crew(1) as ask:
        assert ask(tmp_path / "x", square, 1).result() == 1
        assert ask(tmp_path / "x", reads_on, tmp_path / "x", 0.5).result() == "done"


def test_a_name_that_is_no_utf_8_is_used(tmp_path):
    path = write_video(tmp_path / "good.mp4", 20).rename(os.fsdecode(os.fsencode(tmp_path) + b"/M\xfcller.mp4"))
    manifest = Manifest("folder", tmp_path, (Video(path.stem, path.stem, path),))
    for _ in range(2):
        assert len(build_store(manifest, tmp_path / "s", SETTINGS, progress=False)) == 4
