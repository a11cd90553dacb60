"""What the machine itself can do: matrix products, reading and writing of its disk, memory."""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from surgdino.errors import from_os_error
from surgdino.frames.shard import Shard, ShardReader
from surgdino.frames.store import FrameStore

# Sides of square matrices: large enough that a chip reaches its rate, small enough for a second on two cores.
_SIDES = {"cuda": (4096, 8192), "cpu": (1024, 2048)}
_PAGE = 4096
_READS = 2000
_FEW_READS = 500
_OPEN_SHARDS = 64
_WRITE_BYTES = 64 << 20


def matrix_rate(device: torch.device, dtype: torch.dtype, seconds: float) -> float:
    """FLOP/s of the fastest square matrix product found within `seconds`: the limit of everything made of them."""
    best = 0.0
    for side in _SIDES.get(device.type, _SIDES["cpu"]):
        left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        for repeats in (1, 5 if device.type == "cuda" else 1):  # the first time is to warm up
            until = time.perf_counter() + seconds / 4
            while True:
                took = timed(device, partial(_multiply, left, right, repeats))
                best = max(best, repeats * 2 * side**3 / took)
                if time.perf_counter() > until:
                    break
    return best


def _multiply(left: torch.Tensor, right: torch.Tensor, times: int) -> None:
    for _ in range(times):
        left @ right


def timed(device: torch.device, work: Callable[[], None]) -> float:
    """Seconds that `work` takes, the device's queue emptied before and after."""
    finish(device)
    started = time.perf_counter()
    work()
    finish(device)
    return time.perf_counter() - started


def finish(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def memory(device: torch.device) -> tuple[float, float]:
    """(peak, limit) in bytes: of the GPU, else of this process and of the machine."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device), torch.cuda.get_device_properties(device).total_memory
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return peak, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Reading:
    """Stored JPEGs a second and their bytes a second."""

    frames: float
    bytes: float


@dataclass(frozen=True)
class StoreReading:
    """How fast JPEGs come from the store: out of memory, and from the disk where that could be made to happen."""

    memory: Reading
    disk: Reading | None


def read_store(store: FrameStore, seconds: float) -> StoreReading:
    """Read stored JPEGs in random order, undecoded, one after another.

    Emptying the whole page cache takes root; the pages of a file one has open can be given up without. Where the second
    reading is not much faster than the first, they were not (some file systems ignore the request). A small store comes
    into memory with the first few reads, since the kernel reads ahead: then there is no figure for the disk either.
    """
    shards = list({video.shard.path: video.shard for video in store.videos}.values())[:_OPEN_SHARDS]
    rng = np.random.default_rng(0)
    every = [(shard, row) for shard in shards for row in range(len(shard))]
    places = [every[k] for k in rng.permutation(len(every))[:_READS]]  # each once: the second time is from memory
    _give_up_pages(places)
    first = _read(places, seconds)
    again = _read(places, seconds)
    enough = len(places) > _FEW_READS and first.frames < again.frames / 2
    return StoreReading(memory=again, disk=first if enough else None)


def _read(places: Sequence[tuple[Shard, int]], seconds: float) -> Reading:
    readers: dict[Path, ShardReader] = {}
    for shard, _ in places:
        if shard.path not in readers:
            readers[shard.path] = ShardReader(shard)
    size = count = 0
    started = time.perf_counter()
    for shard, row in places:
        size, count = size + len(readers[shard.path].jpeg(row)), count + 1
        if time.perf_counter() - started > seconds:
            break
    took = time.perf_counter() - started
    return Reading(count / took, size / took)


def _give_up_pages(places: Sequence[tuple[Shard, int]]) -> None:
    """Only the frames that will be read: others may be in use by a training run."""
    if not hasattr(os, "posix_fadvise"):
        return
    for shard, row in places:
        offset, size = int(shard.columns["offset"][row]), int(shard.columns["size"][row])
        start = offset // _PAGE * _PAGE
        descriptor = os.open(shard.path, os.O_RDONLY)
        try:
            os.fdatasync(descriptor)  # pages not yet written cannot be given up
            length = -(-(offset + size - start) // _PAGE) * _PAGE
            os.posix_fadvise(descriptor, start, length, os.POSIX_FADV_DONTNEED)
        except OSError:
            return  # no cold reading then
        finally:
            os.close(descriptor)


def write_rate(folder: Path) -> float:
    """Bytes/s that the disk under `folder` takes, written in one go and synced.

    Raises:
        SurgdinoError: it takes none.
    """
    block, file = os.urandom(_WRITE_BYTES), folder / ".bench.tmp"
    try:
        started = time.perf_counter()
        with file.open("wb") as stream:
            stream.write(block)
            stream.flush()
            os.fsync(stream.fileno())
        took = time.perf_counter() - started
    except OSError as error:
        raise from_os_error(error, file) from error
    finally:
        file.unlink(missing_ok=True)
    return _WRITE_BYTES / took
