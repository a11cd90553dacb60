"""Building shards in parallel over videos, with one progress bar."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from typing import Any

import cv2

from surgdino import console
from surgdino.errors import SurgdinoError
from surgdino.frames.build import ShardTask, build_shard

# Places in the counters that all workers share: frames planned, videos probed, frames stored, and a request to stop.
_PLANNED, _PROBED, _DONE, _STOP = range(4)
_counters: Any = None

Result = tuple[ShardTask, SurgdinoError | None]


def build_all(tasks: Sequence[ShardTask], workers: int, progress: bool) -> Generator[Result, None, None]:
    """Build shards, the largest source first; yields each task as it ends, with the error in its video, if any.

    Leaving the iteration early stops the other workers at their next frame; they write no shard.

    Args:
        tasks: one a video.
        workers: processes; 0 takes one a core, but no more than there are videos.
        progress: whether to draw a bar.
    """
    if not tasks:
        return
    cores = len(os.sched_getaffinity(0))
    workers = min(workers or cores, len(tasks))
    threads = max(1, cores // workers)
    largest_first = sorted(tasks, key=lambda task: -(task.video.path.stat().st_size if task.video.path.exists() else 0))
    context = multiprocessing.get_context("spawn")  # not forked: the parent may hold torch's threads
    counters = context.Array("q", 4)
    executor: Executor
    if workers == 1:
        executor = ThreadPoolExecutor(1, initializer=_share, initargs=(counters,))
    else:
        executor = ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(counters,))
    with console.bar("building the frame store", shown=progress) as bar:
        try:
            running = {executor.submit(_work, replace(task, threads=threads)): task for task in largest_first}
            ended = 0
            while running:
                finished, _ = wait(running, timeout=0.25, return_when=FIRST_COMPLETED)
                for future in finished:
                    ended += 1
                    yield running.pop(future), future.result()
                planned, probed, done = counters[_PLANNED], max(1, counters[_PROBED]), counters[_DONE]
                # Videos not probed yet are taken to be as long as the others.
                total = planned if not running else round(planned / probed * len(tasks))
                bar.update(done=done, total=total or None, text=f"frames of {ended}/{len(tasks)} videos")
        except BrokenProcessPool as error:
            raise SurgdinoError(
                "a worker of the frame store was killed, perhaps for lack of memory; finished videos are kept",
                fix="run it again, with fewer data.workers",
            ) from error
        finally:
            counters[_STOP] = 1
            executor.shutdown(cancel_futures=True)


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
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the parent ends the workers
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # A worker that waits for tasks does not notice that its parent was killed.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
