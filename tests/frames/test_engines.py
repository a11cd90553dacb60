"""Work by video through Dask: the same bytes as here, a lost worker costs its video's time, faults are one line."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
from concurrent.futures import wait
from dataclasses import replace
from pathlib import Path

import pytest

from surgdino import __version__
from surgdino.datasets.manifest import Manifest, Video
from surgdino.errors import SurgdinoError
from surgdino.frames import dask_cluster, engines, pool
from surgdino.frames.build import build_shard
from surgdino.frames.engines import DASK, LOCAL, EngineError, crew_on, engine_named, spread
from surgdino.frames.store import StoreSettings, build_store
from surgdino.frames.worker import CrashError
from tests.frames.numbered_video import write_video

dask = pytest.importorskip("dask", reason="the extra surgdino[dask] is not installed")
SETTINGS = StoreSettings.of(fps=5, content_crop=False)


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Manifest:
    """Three that can be read, and one that cannot."""
    folder = tmp_path_factory.mktemp("videos")
    first = write_video(folder / "good.mp4", 20)
    paths = [first, *(Path(shutil.copy(first, folder / f"{name}.mp4")) for name in ("hostile", "other"))]
    (folder / "bad.mp4").write_bytes(b"no video" * 100)
    return Manifest("folder", folder, tuple(Video(path.stem, path.stem, path) for path in [*paths, folder / "bad.mp4"]))


@pytest.fixture(scope="module")
def scheduler():
    """The address of a scheduler with a worker that is a thread of this process, to be quick."""
    from distributed import LocalCluster

    alone = {"processes": False, "protocol": "tcp://", "dashboard_address": None, "silence_logs": 50}
    with LocalCluster(n_workers=1, threads_per_worker=1, **alone) as cluster:
        yield cluster.scheduler_address


def built(videos: Manifest, folder: Path, engine: str) -> dict[str, bytes]:
    workers = 2 if engine == DASK else 1
    store = build_store(videos, folder, SETTINGS, workers=workers, max_bad_share=0.5, progress=False, engine=engine)
    assert list(store.set_aside) == ["bad"]
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def here(videos, tmp_path_factory) -> dict[str, bytes]:
    return built(videos, tmp_path_factory.mktemp("here"), LOCAL)


def test_a_running_scheduler_builds_the_same_bytes_and_only_what_is_missing(videos, scheduler, here, tmp_path):
    assert built(videos, tmp_path, scheduler) == here
    shard = next(tmp_path.rglob("good.zip"))
    before = shard.stat().st_mtime_ns
    next(tmp_path.rglob("other.zip")).unlink()
    assert built(videos, tmp_path, scheduler) == here
    assert shard.stat().st_mtime_ns == before


def fail(kind, say):
    if kind == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    raise SurgdinoError("bad", file=kind)


@pytest.mark.slow
def test_a_crash_in_reading_costs_no_worker_and_faults_keep_their_kind(scheduler, tmp_path):
    with crew_on(scheduler, 2, reads=[tmp_path], writes=[tmp_path / "new"]) as ask:
        asked = [ask(Path("x"), fail, kind) for kind in ("crash", "a.mp4")]
        wait(asked)
    with pytest.raises(CrashError, match="SIGSEGV"):
        asked[0].result()
    with pytest.raises(SurgdinoError, match=r"a\.mp4: bad"):
        asked[1].result()
    assert not list((tmp_path / "new").iterdir())


def note(folder: Path, number: int) -> None:
    if number < 0:
        raise SurgdinoError("a negative number", found=number)
    (folder / str(number)).touch()


@pytest.mark.parametrize("where", [LOCAL, "a scheduler"])
def test_jobs_are_spread_and_a_fault_ends_them(where, scheduler, tmp_path, monkeypatch):
    monkeypatch.setattr(engines, "_AHEAD", 2)
    engine = LOCAL if where == LOCAL else scheduler
    jobs = {tmp_path / f"for {k}": (tmp_path, k) for k in range(3)}
    assert set(spread(engine, 2, note, jobs, [tmp_path])) == set(jobs)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "2"]
    with pytest.raises(SurgdinoError, match="a negative number; found -1"):
        list(spread(engine, 2, note, {tmp_path: (tmp_path, -1)}, [tmp_path]))


def test_without_dask_the_extra_is_named_and_nothing_here_needs_it(videos, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.setitem(sys.modules, "dask", None)
    with pytest.raises(
        SurgdinoError, match=r"data\.engine=dask needs packages that are .*; found no dask.*surgdino\[dask\]"
    ):
        built(videos, tmp_path, DASK)
    assert set(spread(LOCAL, 1, note, {tmp_path: (tmp_path, 1)}, [])) == {tmp_path}


@pytest.mark.parametrize("engine", ["tcp://127.0.0.1:9", "tcp://", "nothing://x", "broken.json", "missing.json"])
def test_a_scheduler_that_does_not_answer_is_one_line(engine, videos, tmp_path, monkeypatch):
    monkeypatch.setattr(dask_cluster, "_CONNECT", 0.3)
    monkeypatch.chdir(tmp_path)
    Path("broken.json").write_text("{}")
    with pytest.raises(SurgdinoError, match=r"no Dask scheduler answers|\.json") as refused:
        built(videos, tmp_path / "s", engine)
    assert "\n" not in str(refused.value)


def test_other_words_than_engines_are_refused():
    assert engine_named("/shared/scheduler.json")
    with pytest.raises(SurgdinoError, match=r"data\.engine cannot be used; expected local, dask, .*found dusk"):
        engine_named("dusk")


def test_a_worker_without_our_folders_or_version_is_refused(scheduler, tmp_path, monkeypatch):
    home = dask_cluster._Home(__version__, False, (tmp_path,), (tmp_path / "mark",))
    (tmp_path / "mark").touch()
    assert home.unfit() is None
    for other, words in {
        replace(home, version="9"): "another version of surgdino; expected 9",
        replace(home, reads=(tmp_path / "data",)): "data: the Dask worker on .* does not see this folder",
        replace(home, marks=(tmp_path / "gone",)): "or another one of that name",
    }.items():
        with pytest.raises(EngineError, match=words):
            raise other.unfit()
    unseen = crew_on(scheduler, 1, reads=[tmp_path / "data"], writes=[])
    with pytest.raises(EngineError, match="does not see"), unseen:
        pytest.fail("work began")


def listening() -> set[str]:
    """Addresses on which processes of this machine listen, hexadecimal."""
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return {row[1] for row in rows if row[3] == "0A"}


def lose_worker(task, say):
    """The first time that the hostile video is read, its Dask worker is killed."""
    first = task.root / "lost"
    if "hostile" in task.video.id and not first.exists():
        first.touch()
        os.kill(os.getppid(), signal.SIGKILL)
    build_shard(task, lambda frames: None, lambda: None)


def lose_workers(task, say):
    if "hostile" in task.video.id:
        os.kill(os.getppid(), signal.SIGKILL)
    build_shard(task, lambda frames: None, lambda: None)


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_its_videos_time_and_is_said(videos, here, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pool, "_build", lose_worker)
    before = listening()
    opened = set()
    show = pool._Counts.show
    monkeypatch.setattr(pool._Counts, "show", lambda self: (opened.update(listening() - before), show(self)))
    assert built(videos, tmp_path, DASK) == here
    assert (videos.root / "lost").exists()
    said = "".join(capsys.readouterr())
    assert said.count("a Dask worker was lost; what it was at is done again: ") == 1
    assert "hostile.mp4" in said
    local = socket.inet_aton("127.0.0.1")[::-1].hex().upper()
    assert opened
    assert all(address.startswith(local) for address in opened)


@pytest.mark.slow
def test_a_video_that_kills_workers_again_and_again_is_set_aside(videos, tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "_build", lose_workers)
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}):
        store = build_store(videos, tmp_path, SETTINGS, workers=2, max_bad_share=0.5, progress=False, engine=DASK)
    assert sorted(store.set_aside) == ["bad", "hostile"]
    assert "workers were lost while they were at it" in store.set_aside["hostile"]
