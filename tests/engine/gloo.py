"""A function in several processes at once, as a launcher would start them, over gloo on the CPU."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from typing import Any

import pytest

# Forked from a server that has imported torch but computed nothing: quick, and autograd bears no fork after first use.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["surgdino.engine.train", "tests.engine.test_training"])


def no_bf16_on_cpu(patched: pytest.MonkeyPatch) -> None:
    """`auto` takes fp32 on any CPU, in this process."""
    from surgdino.engine import precision

    native = precision.has_native_bf16
    patched.setattr(precision, "has_native_bf16", lambda device: device.type == "cuda" and native(device))


def in_processes(count: int, work: Callable, *arguments: Any, joined: bool = True) -> list[Any]:
    """What `work(*arguments)` returns in each of `count` processes, by rank; the first error is raised.

    Not `joined`, they have torchrun's environment and nothing more: the work itself makes them a group.
    """
    port = free_port()
    with ProcessPoolExecutor(count, mp_context=CONTEXT) as pool:
        futures = [pool.submit(_as_rank, rank, count, port, joined, work, arguments) for rank in range(count)]
        return [future.result(timeout=250) for future in futures]


def start_processes(count: int, work: Callable, *arguments: Any) -> None:
    """`work(*arguments)` in each of `count` processes that end with it, in torchrun's environment and no group."""
    port = free_port()
    each = [CONTEXT.Process(target=_as_rank, args=(r, count, port, False, work, arguments)) for r in range(count)]
    for process in each:
        process.start()
    for process in each:
        process.join(timeout=100)
        assert process.exitcode == 0


def free_port() -> int:
    """For the processes to meet."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _as_rank(rank: int, count: int, port: int, joined: bool, work: Callable, arguments: tuple) -> Any:
    import torch

    from surgdino import distributed

    torch.set_num_threads(1)
    places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    os.environ |= {key: str(value) for key, value in places.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    no_bf16_on_cpu(pytest.MonkeyPatch())
    with distributed.together(lambda: torch.device("cpu")) if joined else nullcontext():
        return work(*arguments)
