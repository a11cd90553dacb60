"""A kill, a full disk, a bad video: nothing finished is lost, and one line says what happened."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import cv2
import numpy as np
import pytest

from surgdino.datasets.manifest import Manifest, Video
from surgdino.errors import SurgdinoError
from surgdino.frames import build as building
from surgdino.frames import engines
from surgdino.frames.store import open_store
from tests.frames.faults import SETTINGS, build, manifest_of, shards
from tests.frames.numbered_video import number_in, write_video

BUILD_SLOWLY = """
import sys, pickle, time
from pathlib import Path
from surgdino.frames import build, pool, store

whole = pool._build

def slowly(task, say):
    encode = build._jpeg
    build._jpeg = lambda *a: (time.sleep(0.005), encode(*a))[1]
    try:
        whole(task, say)
    finally:
        build._jpeg = encode

if __name__ == "__main__":
    import build_slowly  # what the workers find under this name

    pool._build = build_slowly.slowly
    manifest, settings = pickle.loads(Path(sys.argv[1]).read_bytes())
    store.build_store(manifest, sys.argv[2], settings, workers=int(sys.argv[3]), progress=False)
"""


def all_ended(leader):
    """Whether the processes of a session come to an end by themselves."""
    for _ in range(400):
        try:
            os.killpg(leader.pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    os.killpg(leader.pid, signal.SIGKILL)
    return False


@pytest.mark.slow
@pytest.mark.quick("1")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_kill_at_any_moment_loses_no_finished_video(videos, tmp_path, workers):
    import pickle

    script, request, folder = tmp_path / "build_slowly.py", tmp_path / "request.pkl", tmp_path / "store"
    script.write_text(BUILD_SLOWLY)
    request.write_bytes(pickle.dumps((videos, SETTINGS)))
    finished, generator = {}, random.Random(workers)
    for _ in range(4):
        command = [sys.executable, script, request, folder, str(workers)]
        process = subprocess.Popen(command, start_new_session=True)
        deadline = time.monotonic() + 20
        while len(shards(folder)) <= len(finished) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(generator.uniform(0, 0.15))
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert all_ended(process), "workers outlived their parent"
        now = shards(folder)
        assert finished.items() <= now.items(), "a finished shard was built again or lost"
        for path in folder.rglob("*.zip"):
            with zipfile.ZipFile(path) as archive:
                assert archive.testzip() is None
        finished = now
    store = build(videos, folder)
    assert finished.items() <= shards(folder).items()
    assert [number_in(store.read(i)) for i in range(len(store))] == [*range(0, 100, 5)] * 6


@pytest.mark.slow
def test_workers_end_when_their_parent_is_killed(videos, tmp_path):
    import pickle

    script, request = tmp_path / "build_slowly.py", tmp_path / "request.pkl"
    script.write_text(BUILD_SLOWLY)
    request.write_bytes(pickle.dumps((videos, SETTINGS)))
    process = subprocess.Popen([sys.executable, script, request, tmp_path / "store", "2"], start_new_session=True)
    while not list((tmp_path / "store").rglob(".*.tmp")):
        time.sleep(0.02)
        assert process.poll() is None
    process.kill()
    process.wait()
    assert all_ended(process), "workers outlived their parent"


def test_a_full_disk_is_one_line_and_keeps_what_was_finished(videos, tmp_path, monkeypatch):
    written, encode = [], building._jpeg

    def until_full(*arguments):
        written.append(1)
        if len(written) > 50:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return encode(*arguments)

    @contextmanager
    def in_this_process(size):
        with ThreadPoolExecutor(size) as threads:
            yield lambda file, function, *arguments, hear: threads.submit(function, *arguments, hear)

    monkeypatch.setattr(engines, "crew", in_this_process)
    monkeypatch.setattr(building, "_jpeg", until_full)
    with pytest.raises(SurgdinoError, match=r"video\d\.zip: the disk is full.*Free some space"):
        build(videos, tmp_path)
    finished = shards(tmp_path)
    assert len(finished) == 2
    assert not list(tmp_path.rglob("*.tmp")), "a half-written shard takes up what space there is"
    monkeypatch.undo()
    assert len(build(videos, tmp_path)) == 120
    assert finished.items() <= shards(tmp_path).items()


def test_a_folder_that_may_not_be_written_is_one_line(videos, tmp_path):
    (tmp_path / "store").write_text("a file, not a folder")
    with pytest.raises(SurgdinoError) as caught:
        build(videos, tmp_path / "store")
    assert "store" in str(caught.value)


@pytest.fixture
def mixed(tmp_path):
    """Six good videos, one empty and one truncated."""
    root = tmp_path / "mit Leerzeichen ü"
    root.mkdir()
    good = [write_video(root / "good0.mp4", 50)]
    good += [shutil.copy(good[0], root / f"good{i}.mp4") for i in range(1, 6)]
    (root / "leer ß.mp4").touch()
    (root / "truncated.mp4").write_bytes(good[0].read_bytes()[:3000])
    return manifest_of(root, [*good, root / "leer ß.mp4", root / "truncated.mp4"])


@pytest.mark.parametrize("workers", [1, 2])
def test_bad_videos_among_many_are_set_aside_by_name(mixed, tmp_path, workers):
    store = build(mixed, tmp_path / "store", workers=workers)
    assert len(store) == 60
    summary = store.summary()
    assert summary["videos"] == 6
    assert set(summary["set_aside"]) == {"leer ß", "truncated"}
    assert "leer ß.mp4: the file is empty" in summary["set_aside"]["leer ß"]
    assert "truncated" in summary["set_aside"]["truncated"]
    assert len(store.select(["good0", "truncated"])) == 10


def test_more_bad_videos_than_allowed_stop_the_run_and_keep_the_good(mixed, tmp_path):
    with pytest.raises(SurgdinoError, match=r"too many videos are bad.*at most 10% of 8") as caught:
        build(mixed, tmp_path / "store", max_bad_share=0.1)
    assert "\n" not in str(caught.value)
    before = shards(tmp_path / "store")
    assert before.items() <= shards(tmp_path / "store").items()
    assert len(build(mixed, tmp_path / "store")) == 60


def test_a_set_aside_video_is_taken_once_it_is_mended(mixed, tmp_path):
    build(mixed, tmp_path / "store")
    before = shards(tmp_path / "store")
    shutil.copy(mixed.root / "good0.mp4", mixed.root / "truncated.mp4")
    store = build(mixed, tmp_path / "store")
    assert len(store) == 70
    assert before.items() <= shards(tmp_path / "store").items()


def test_damaged_frames_are_left_out_and_counted_and_many_set_the_video_aside(tmp_path):
    path = write_video(tmp_path / "a.mp4", 500, gop=25)
    data = bytearray(path.read_bytes())
    middle = data.index(b"mdat") + (data.index(b"moov") - data.index(b"mdat")) // 2
    data[middle : middle + 40] = np.random.default_rng(0).bytes(40)
    path.write_bytes(data)
    store = build(manifest_of(tmp_path, [path]), tmp_path / "s")
    assert 90 <= len(store) < 100
    assert store.summary()["left_out"] == {"damaged": 100 - len(store)}
    assert all(number_in(store.read(i)) == store.number(i) for i in range(len(store)))
    for at in range(5000, len(data) - 12000, 900):
        data[at : at + 60] = bytes(60)
    path.write_bytes(data)
    with pytest.raises(SurgdinoError, match="too many videos are bad"):
        build(manifest_of(tmp_path, [path]), tmp_path / "s")


def test_images_of_another_size_are_the_reason_that_is_given(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(4):
        shape = (40, 60, 3) if number else (60, 40, 3)
        cv2.imwrite(str(folder / f"{number}.png"), np.full(shape, 90, np.uint8))
    manifest = Manifest("folder", tmp_path, (Video("images", "images", folder, 1.0),))
    with pytest.raises(SurgdinoError, match=r"another size.*orientation"):
        build(manifest, tmp_path / "s")


@pytest.mark.slow
def test_two_builds_at_once_do_not_disturb_each_other(videos, tmp_path):
    import pickle

    script, request = tmp_path / "build_slowly.py", tmp_path / "request.pkl"
    script.write_text(BUILD_SLOWLY)
    request.write_bytes(pickle.dumps((videos, SETTINGS)))
    command = [sys.executable, script, request, tmp_path / "store", "1"]
    processes = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    store = open_store(tmp_path / "store", videos, SETTINGS)
    assert [number_in(store.read(i)) for i in range(len(store))] == [*range(0, 100, 5)] * 6


def test_leftovers_of_killed_builds_are_swept_once_they_are_old(videos, tmp_path):
    folder = build(videos, tmp_path).videos[0].shard.path.parent
    old, young = folder / ".video0.zip.1.tmp", folder / ".video1.zip.2.tmp"
    for file in (old, young):
        file.write_bytes(b"half")
    os.utime(old, (time.time() - 7200, time.time() - 7200))
    next(folder.glob("*.zip")).unlink()
    build(videos, tmp_path)
    assert not old.exists()
    assert young.exists()


def test_no_videos_is_one_line(tmp_path):
    with pytest.raises(SurgdinoError, match="no videos"):
        build(Manifest("folder", tmp_path, ()), tmp_path / "s")


def test_reading_is_quick_enough_to_feed_a_loader(videos, tmp_path):
    store = build(videos, tmp_path)
    started = time.perf_counter()
    jpegs = [store.read(i % len(store)) for i in range(600)]
    with_store = time.perf_counter() - started
    encoded = cv2.imencode(".jpg", jpegs[0])[1]
    started = time.perf_counter()
    for _ in range(600):
        cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    assert with_store < 6 * (time.perf_counter() - started) + 0.1
