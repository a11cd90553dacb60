"""Building shards in parallel over videos, with one progress bar."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from surgdino.errors import SurgdinoError
from surgdino.frames.build import ShardTask, build_shard

# Places in the counters that all workers share: frames known of, videos looked at, frames stored, and a wish to stop.
_PLANNED, _PROBED, _DONE, _STOP = range(4)
_counters: Any = None

Result = tuple[ShardTask, SurgdinoError | None]


def build_all(tasks: Sequence[ShardTask], workers: int, progress: bool) -> Generator[Result, None, None]:
    """Build shards, the largest source first; yields each task as it ends, with what was wrong with its video.

    Leaving the iteration early stops the other workers at their next frame; their shards stay unwritten.

    Args:
        tasks: one a video.
        workers: processes; 0 takes one a core, but no more than there are videos.
        progress: whether to draw a bar.

    Raises:
        SurgdinoError: a worker was killed.
    """
    if not tasks:
        return
    cores = len(os.sched_getaffinity(0))
    workers = min(workers or cores, len(tasks))
    threads = max(1, cores // workers)
    largest_first = sorted(tasks, key=lambda task: -_size(task.video.path))
    context = multiprocessing.get_context("spawn")  # not forked: the parent may hold torch's threads
    counters = context.Array("q", 4)
    executor: Executor
    if workers == 1:
        _share(counters)
        executor = ThreadPoolExecutor(1)
    else:
        executor = ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(counters,))
    with _progress(progress) as bar:
        row = bar.add_task("building the frame store", total=None, rate="")
        try:
            running = {executor.submit(_work, replace(task, threads=threads)): task for task in largest_first}
            yield from _results(running, lambda ended: _show(bar, row, counters, ended, len(tasks)))
        except BrokenProcessPool as error:
            raise SurgdinoError(
                "a worker of the frame store was killed, perhaps for want of memory; finished videos are kept",
                fix="run it again, with fewer data.workers",
            ) from error
        finally:
            counters[_STOP] = 1
            executor.shutdown(cancel_futures=True)


def _results(running: dict[Future, ShardTask], show: Callable[[int], None]) -> Iterator[Result]:
    ended = 0
    while running:
        finished, _ = wait(running, timeout=0.25, return_when=FIRST_COMPLETED)
        for future in finished:
            ended += 1
            yield running.pop(future), future.result()
        show(ended)


def _work(task: ShardTask) -> SurgdinoError | None:
    seen = False

    def planned(frames: int) -> None:
        nonlocal seen
        seen = True
        _add(_PLANNED, frames)
        _add(_PROBED, 1)

    def done() -> None:
        if _counters[_STOP]:
            raise SurgdinoError("stopped", file=task.shard)
        _add(_DONE, 1)

    try:
        build_shard(task, planned, done)
    except SurgdinoError as error:
        return error
    finally:
        if not seen:
            planned(0)
    return None


def _add(place: int, amount: int) -> None:
    with _counters.get_lock():
        _counters[place] += amount


def _share(counters: Any) -> None:
    global _counters
    _counters = counters


def _start_worker(counters: Any) -> None:
    _share(counters)
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all of them; the parent sees to an orderly end
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # A worker waiting for tasks does not notice that its parent was killed, and would wait for ever.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _progress(visible: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not visible,
    )


def _show(bar: Progress, row: TaskID, counters: Any, ended: int, videos: int) -> None:
    planned, probed, done = counters[_PLANNED], max(1, counters[_PROBED]), counters[_DONE]
    # Videos not looked at yet are taken to be as long as the others.
    total = planned if ended == videos else round(planned / probed * videos)
    bar.update(row, total=total or None, completed=done)
    speed = bar.tasks[row].finished_speed or bar.tasks[row].speed or 0.0
    bar.update(row, rate=f"{ended}/{videos} videos, {done} frames, {speed:.0f} frames/s")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
