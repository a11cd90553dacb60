"""Reading many videos at once, in processes of their own: one bad video never costs the others."""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, Any

import cv2

from surgdino import console, machine
from surgdino.datasets.manifest import Video
from surgdino.errors import SurgdinoError, from_os_error
from surgdino.frames.build import ShardTask, build_shard
from surgdino.frames.engines import DASK, LOCAL, EngineError, crew_on, processes_for
from surgdino.frames.video.decode import VideoInfo, probe
from surgdino.frames.worker import Ask, CrashError, HangError, crew
from surgdino.paths import regular
from surgdino.records import checked, parse_json

# A video whose process has died this often is set aside, until it is changed or its note is deleted.
_DEATHS = 2
_SAY_EVERY = 16, 1.0  # frames, seconds: whichever comes first
_NOTE_SIZE = 1000  # characters

Result = tuple[ShardTask, SurgdinoError | None]


def probe_all(videos: Sequence[Video], decoder: str, workers: int) -> Iterator[VideoInfo | SurgdinoError]:
    """What is known of each video without decoding it, or why nothing is, in their order; `workers` at most."""
    with crew(max(1, min(workers, len(videos), machine.cores()))) as ask:
        asked = [ask(video.path, _probe, video, decoder) for video in videos]
        for video, future in zip(videos, asked, strict=True):
            try:
                yield future.result()
            except SurgdinoError as error:
                yield error
            except CrashError as death:
                yield _died(video, str(death))


def _probe(video: Video, decoder: str, say: Callable[[Any], None]) -> VideoInfo:
    info = probe(video.path, decoder, fps=video.fps, pictures=video.pictures)
    return replace(info, source=None)  # a long list that nobody asks for


def build_all(
    tasks: Sequence[ShardTask], workers: int, progress: bool, engine: str = LOCAL
) -> Generator[Result, None, None]:
    """Build shards, the largest source first; yields each task as it ends, with the error in its video, if any.

    A video whose process dies is tried again at the end, when nothing else runs. Leaving the iteration early stops the
    others, which write no shard.

    Args:
        tasks: one a video.
        workers: processes; 0 takes one a core, but no more than there are videos.
        progress: whether to draw a bar.
        engine: see `crew_on`.
    """
    if not tasks:
        return
    cores = machine.cores()
    workers = processes_for(workers, len(tasks))
    threads = max(1, cores // workers) if engine in (LOCAL, DASK) else 1
    reads, writes = {task.root for task in tasks}, {task.shard.parent for task in tasks}
    tasks = [replace(task, threads=threads) for task in sorted(tasks, key=lambda task: -_size(task.video.path))]
    deaths = {id(task): _noted_deaths(task) for task in tasks}
    suspects = [task for task in tasks if deaths[id(task)]]
    with (
        console.bar("building the frame store", shown=progress) as bar,
        crew_on(engine, workers, reads=reads, writes=writes) as ask,
    ):
        counts = _Counts(len(tasks), bar)
        together = [task for task in tasks if not deaths[id(task)]]
        with closing(_ended(ask, together, counts)) as results:
            for task, outcome in results:
                if isinstance(outcome, HangError):  # no other is to blame
                    yield task, _died(task.video, str(outcome))
                elif isinstance(outcome, CrashError):
                    deaths[id(task)] += 1
                    suspects.append(task)
                else:
                    yield task, outcome
        for task in suspects:  # one by one: what kills one process may have been another's hunger for memory
            how = f"{_DEATHS} deaths, in earlier runs"
            while deaths[id(task)] < _DEATHS:
                _, outcome = next(_ended(ask, [task], counts))
                if not isinstance(outcome, CrashError):
                    yield task, outcome
                    break
                deaths[id(task)] += 1
                how = str(outcome)
            else:
                yield task, _died(task.video, how, fix=f"re-encode it; to have it tried again, delete {_note(task)}")


def _ended(
    ask: Ask, tasks: Sequence[ShardTask], counts: _Counts
) -> Generator[tuple[ShardTask, SurgdinoError | CrashError | None], None, None]:
    """Each task as it ends."""
    running: dict[Future, ShardTask] = {
        ask(task.video.path, _build, task, hear=partial(counts.hear, task)): task for task in tasks
    }
    while running:
        finished, _ = wait(running, timeout=0.25, return_when=FIRST_COMPLETED)
        for future in finished:
            task, error = running.pop(future), future.exception()
            if isinstance(error, EngineError) or not isinstance(error, SurgdinoError | CrashError | None):
                raise error
            counts.ended(task)
            yield task, error
        counts.show()


class _Counts:
    """Frames planned and stored, and videos ended, for the bar."""

    def __init__(self, videos: int, bar: console.Bar) -> None:
        self._videos, self._bar = videos, bar
        self._planned: dict[int, int] = {}
        self._done: dict[int, int] = {}
        self._ended: set[int] = set()

    def hear(self, task: ShardTask, said: tuple[int, int]) -> None:
        self._planned[id(task)], self._done[id(task)] = said

    def ended(self, task: ShardTask) -> None:
        self._ended.add(id(task))
        self._done[id(task)] = self._planned.setdefault(id(task), 0)

    def show(self) -> None:
        planned, done = list(self._planned.values()), sum(list(self._done.values()))
        # Videos not probed yet are taken to be as long as the others.
        total = round(sum(planned) / max(1, len(planned)) * self._videos)
        self._bar.update(done=done, total=total or None, text=f"frames of {len(self._ended)}/{self._videos} videos")


def _build(task: ShardTask, say: Callable[[Any], None]) -> None:
    cv2.setNumThreads(task.threads)
    frames = stored = 0
    said = time.monotonic()

    def planned(count: int) -> None:
        nonlocal frames
        frames = count
        say((frames, 0))

    def done() -> None:
        nonlocal stored, said
        stored += 1
        if stored % _SAY_EVERY[0] == 0 or stored == frames or time.monotonic() - said > _SAY_EVERY[1]:
            said = time.monotonic()
            say((frames, stored))

    with _noted(task):
        build_shard(task, planned, done)


@dataclass(frozen=True)
class _Deaths:
    """What is left beside the shard of a video in whose reading a process died."""

    source: str
    deaths: int


def _note(task: ShardTask) -> Path:
    return task.shard.with_name(f".{task.shard.name}.died")


def _noted_deaths(task: ShardTask) -> int:
    """How many processes died while they read this very file; one that is at it now does not count."""
    with suppress(OSError, SurgdinoError), regular(_note(task)).open() as file:
        if _locked(file):
            note = checked(_Deaths, parse_json(file.read(_NOTE_SIZE), _note(task)), _note(task))
            return note.deaths if note.source == _version(task) else 0
    return 0


@contextmanager
def _noted(task: ShardTask) -> Iterator[None]:
    """A note that stays where the process does not live to remove it."""
    note, deaths = _note(task), _noted_deaths(task) + 1
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        if note.exists():
            regular(note)  # a pipe would be waited for
        file = note.open("a")
    except OSError as error:
        raise from_os_error(error, task.shard) from error
    with file:
        mine = _locked(file)
        if mine:
            file.truncate(0)
            file.write(json.dumps({"source": _version(task), "deaths": deaths}))
            file.flush()
        try:
            yield
        finally:
            if mine:
                note.unlink(missing_ok=True)


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _version(task: ShardTask) -> str:
    path = task.video.path
    status = (path if path.exists() else path.parent).stat()  # of `train/8_*` the folder's
    return f"{status.st_size} {status.st_mtime_ns}"


def _died(video: Video, how: str, fix: str = "re-encode it or leave it out") -> SurgdinoError:
    return SurgdinoError("the process that read it died", file=video.path, found=how, fix=fix)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
