"""Work done ahead by worker processes: in order, the same for any number of them, within the memory that they share."""

from __future__ import annotations

import gc
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from math import ceil
from typing import Any, TypeVar

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from surgdino import console, distributed, machine
from surgdino.errors import SurgdinoError, is_out_of_memory

Job = TypeVar("Job")
Result = TypeVar("Result")
AHEAD = 2  # results that a worker keeps ready
_END = object()
_GONE = (ConnectionError, EOFError, FileNotFoundError)  # a result was announced, but who holds its memory has died
# Results lie in shared memory, and a pinned copy of each in the main process.
_SHARE_OF_SHARED, _SHARE_OF_MEMORY = 0.9, 0.25
_IN_HAND = 2  # results that the main process works on or lets go of, beside those that workers keep ready


def load(
    work: Callable[[Job], Result],
    jobs: Iterable[Job],
    workers: int,
    pin_memory: bool = False,
    ahead: int = AHEAD,
    *,
    result_bytes: int,
) -> Iterator[Result]:
    """`work(job)` of every job, in order, computed ahead by worker processes (each up to `ahead` jobs), or here for 0.

    Args:
        result_bytes: of the tensors of one result; fewer workers, or fewer results ahead, keep those within memory.

    Raises:
        SurgdinoError: `work` raised it, a worker process was killed, or there is too little (shared) memory.
    """
    cv2.setNumThreads(0)  # parallelism is over images; OpenCV's own threads would compete with it for the same cores
    workers, ahead = within_memory(workers, ahead, result_bytes)
    loader = DataLoader(
        _Work(work, shared=workers > 0),
        batch_size=None,  # a job makes a whole batch already: nothing is collated
        sampler=jobs,
        num_workers=workers,
        pin_memory=pin_memory,
        worker_init_fn=_start_worker,
        prefetch_factor=ahead if workers else None,
    )
    results = _iterate(loader)
    while (result := _next(results, from_workers=workers > 0)) is not _END:
        if isinstance(result, SurgdinoError):
            raise result
        yield result


def within_memory(workers: int, ahead: int, result_bytes: int) -> tuple[int, int]:
    """As many workers, and results ahead, as fit into this process's share of the (shared) memory; said where fewer.

    Raises:
        SurgdinoError: not one worker with one result ahead fits.
    """
    sharing = distributed.local_world_size()
    shared, memory = machine.free_shared_memory(), machine.memory()
    room = memory * _SHARE_OF_MEMORY / sharing
    tight = shared is not None and shared * _SHARE_OF_SHARED / sharing < room
    if shared is not None and tight:
        room = shared * _SHARE_OF_SHARED / sharing
    fitting = int(room // max(result_bytes, 1)) - _IN_HAND
    if not workers or fitting >= workers * ahead:
        return workers, ahead

    def needed(results: int) -> float:
        share = _SHARE_OF_SHARED if tight else _SHARE_OF_MEMORY
        return (results + _IN_HAND) * result_bytes * sharing / share

    where, found = (str(machine.SHARED), shared or 0) if tight else ("memory", memory)
    more = (
        f"give the container more (docker run --shm-size={ceil(needed(workers * ahead) / 2**30)}g), or "
        if tight
        else ""
    )
    if fitting < 1:
        what = "not one batch of a loader worker fits into the memory that processes share"
        fix = f"{more}lower train.batch_size, or set hardware.loader_workers=0"
        raise SurgdinoError(what, place=where, expected=f"at least {_size(needed(1))}", found=_size(found), fix=fix)
    fewer, less = min(workers, fitting), max(fitting // workers, 1)
    _say(
        f"{where} has {_size(found)}, {workers} loader workers with {ahead} batches each need "
        f"{_size(needed(workers * ahead))}: {fewer} with {less} each are used; {more}lower train.batch_size"
    )
    return fewer, less


def _size(count: float) -> str:
    return f"{count / 2**30:.3g} GiB" if count >= 2**30 else f"{count / 2**20:.3g} MiB"


@cache
def _say(sentence: str) -> None:
    """Once: a task loads many times."""
    console.warn(sentence)


def _iterate(loader: DataLoader) -> Iterator[Any]:
    """The loader at work. torch would raise a worker's death in the middle of whatever this process does; without its
    handler it is noticed where the next result is waited for, between two steps."""
    before = signal.getsignal(signal.SIGCHLD)
    results = iter(loader)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)
    return results


def _next(results: Iterator[Any], *, from_workers: bool) -> Any:
    try:
        return next(results, _END)
    except (RuntimeError, MemoryError, *_GONE) as error:
        if is_out_of_memory(error):
            raise _no_memory("where batches are handed over") from error
        said = str(error).partition("\n")[0]
        passed_on = from_workers and isinstance(error, _GONE) and "in DataLoader worker process" not in said
        if not passed_on and not said.startswith("DataLoader worker (pid"):
            raise
        fix = "lower hardware.loader_workers or train.batch_size; the same command continues"
        found = f"{said}: the system may have killed it for want of memory, or /dev/shm is full"
        raise SurgdinoError("a worker process that loads frames was killed", found=found, fix=fix) from None


def _shared_memory_is_full(said: str) -> SurgdinoError:
    fix = "enlarge it (docker run --shm-size=...) or lower hardware.loader_workers; the same command continues"
    return SurgdinoError("shared memory is full", place=str(machine.SHARED), found=said, fix=fix)


def _no_memory(where: str) -> SurgdinoError:
    fix = "lower hardware.loader_workers or train.batch_size"
    return SurgdinoError(f"not enough memory {where}", fix=f"{fix}; the same command continues")


@dataclass
class _Work(Dataset):
    """Jobs in, results out. A fault of the input is returned: an exception would reach the main process as text."""

    work: Callable[[Any], Any]
    shared: bool

    def __getitem__(self, job: Any) -> Any:
        try:
            result = self.work(job)
            if self.shared:
                _share(result)
        except SurgdinoError as fault:
            return fault
        except Exception as error:
            if "unable to allocate shared memory" in str(error):
                return _shared_memory_is_full(str(error))
            if is_out_of_memory(error):
                return _no_memory("in a worker process that loads frames")
            raise
        return result


def _share(result: Any) -> None:
    """Move a result's tensors into shared memory here: torch would do so in a thread, where a full one is a wait
    without end for the main process."""
    if isinstance(result, torch.Tensor):
        result.share_memory_()
    elif isinstance(result, dict):
        for part in result.values():
            _share(part)
    elif hasattr(result, "__dict__"):  # a dataclass
        _share(vars(result))


def _start_worker(_worker: int) -> None:
    cv2.setNumThreads(0)
    # What a worker was forked with is there to stay: looking through it again and again would also copy its pages.
    gc.freeze()
