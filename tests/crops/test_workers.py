"""Worker processes stay within the memory that they share, and their end is one line."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
import torch

from surgdino import machine
from surgdino.crops import workers
from surgdino.crops.workers import load, within_memory
from surgdino.errors import SurgdinoError

MB = 2**20


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    sentences: list[str] = []
    monkeypatch.setattr(workers, "_say", sentences.append)
    monkeypatch.setattr(machine, "memory", lambda: 64 * 1024 * MB)
    monkeypatch.setattr(machine, "free_shared_memory", lambda: 64 * 1024 * MB)
    return sentences


@pytest.mark.parametrize(
    ("shared", "fitting"), [(64 * 1024, (16, 2)), (6000, (16, 1)), (2000, (4, 1)), (900, (1, 1)), (None, (16, 2))]
)
def test_fewer_results_ahead_then_fewer_workers_fit_into_shared_memory(
    shared: int | None, fitting: tuple[int, int], said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "free_shared_memory", lambda: None if shared is None else shared * MB)
    assert within_memory(16, 2, 267 * MB) == fitting
    assert len(said) == (fitting != (16, 2))
    assert all("/dev/shm" in line and "--shm-size=10g" in line and "\n" not in line for line in said)


def test_a_machines_processes_share_its_memory(said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    monkeypatch.setattr(machine, "free_shared_memory", lambda: 6000 * 8 * MB)
    monkeypatch.setattr(machine, "memory", lambda: 10**13)
    assert within_memory(16, 2, 267 * MB) == (16, 1)


def test_memory_binds_too(said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "memory", lambda: 16 * 1024 * MB)
    assert within_memory(16, 2, 267 * MB) == (13, 1)
    assert said[0].startswith("memory has 16 GiB")
    assert "docker" not in said[0]


def test_where_not_one_batch_fits_the_remedy_is_named(said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "free_shared_memory", lambda: 64 * MB)
    with pytest.raises(SurgdinoError, match=r"/dev/shm: not one batch.*found 64 MiB.*docker run --shm-size=10g"):
        load_all(lambda job: job, workers=16, result_bytes=267 * MB)
    assert load_all(lambda job: job, workers=0, result_bytes=267 * MB) == list(range(5))


def load_all(work, workers: int = 1, result_bytes: int = 1) -> list:
    return list(load(work, range(5), workers, result_bytes=result_bytes))


def test_full_shared_memory_is_one_line_and_no_wait(said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(tensor: torch.Tensor) -> torch.Tensor:
        raise RuntimeError(
            "unable to allocate shared memory(shm) for file </torch_1_2_3>: No space left on device (28)"
        )

    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    with pytest.raises(SurgdinoError, match=r"/dev/shm: shared memory is full.*No space left.*--shm-size"):
        load_all(lambda job: {"images": torch.zeros(3)})


def killed_at(job: int) -> int:
    if job == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return job


@pytest.mark.parametrize("error", [ConnectionResetError(104, "reset"), EOFError(), FileNotFoundError("socket")])
def test_a_worker_that_dies_while_its_result_is_fetched_is_one_line(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch passes this on as it is where the process has not quite ended yet."""

    def dying(loader: object) -> Iterator[int]:
        yield 0
        raise error

    monkeypatch.setattr(workers, "_iterate", dying)
    results = load(out_of_memory, range(10), workers=1, result_bytes=1)
    assert next(results) == 0
    with pytest.raises(SurgdinoError, match=r"worker process .* killed"):
        next(results)


def missing_file(job: int) -> int:
    raise FileNotFoundError("a bug")


@pytest.mark.parametrize("count", [0, 1])
def test_a_fault_of_the_work_itself_is_not_taken_for_a_killed_worker(count: int) -> None:
    with pytest.raises(FileNotFoundError, match="a bug"):
        load_all(missing_file, workers=count)


def out_of_memory(job: int) -> int:
    raise MemoryError


@pytest.mark.slow
def test_a_killed_worker_is_one_line_between_two_results(monkeypatch) -> None:
    monkeypatch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 0.1)
    before, done = signal.getsignal(signal.SIGCHLD), []
    results = load(killed_at, range(10), workers=1, result_bytes=1)
    with pytest.raises(
        SurgdinoError, match=r"worker process .* killed.*memory.*/dev/shm.*hardware\.loader_workers"
    ) as caught:
        done.extend(results)
    assert done == list(range(len(done)))
    assert signal.getsignal(signal.SIGCHLD) in (before, signal.SIG_DFL), "a step is never interrupted"
    assert "\n" not in str(caught.value)
    with pytest.raises(SurgdinoError, match="not enough memory"):
        load_all(out_of_memory)
