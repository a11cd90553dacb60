"""The processes of a run: the rank of this one, joining the others, letting the first go first.

All functions work in a single process too. torch is imported only where there are several.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from surgdino.errors import SurgdinoError, shown
from surgdino.machine import affinity

if TYPE_CHECKING:
    import torch

# What one process does alone may take hours (building a store); a process that dies is noticed at once anyway.
_PATIENCE = timedelta(days=7)
_group: Any = None
_sharing: float | None = None


def rank() -> int:
    """This process's number among all; 0 where there is only one."""
    return int(os.environ.get("RANK", 0))


def world_size() -> int:
    """How many processes train together; 1 unless a launcher such as torchrun says otherwise."""
    return int(os.environ.get("WORLD_SIZE", 1))


def local_rank() -> int:
    """This process's number on its machine."""
    return int(os.environ.get("LOCAL_RANK", 0))


def local_world_size() -> int:
    """How many of the processes share this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", world_size()))


def sharing() -> float:
    """How many of the processes use this one's processors, itself included: those of a machine all of them, where
    torchrun started them; 1 where a batch system binds each to processors of its own."""
    return local_world_size() if _sharing is None else _sharing


def is_main() -> bool:
    """True in the one process that prints and writes."""
    return rank() == 0


@contextmanager
def together(choose_device: Callable[[], torch.device]) -> Iterator[None]:
    """Join the processes that a launcher (torchrun, or Hydra's submitit) started, and leave at the end.

    Tensors on GPUs are exchanged by NCCL, those on processors by gloo. Does nothing in a single process.

    Args:
        choose_device: this process's; called when its rank is known.
    """
    if "SUBMITIT_EXECUTOR" in os.environ and "RANK" not in os.environ:  # no torchrun sets the ranks: Slurm knows them
        from submitit.helpers import TorchDistributedEnvironment

        TorchDistributedEnvironment().export(set_cuda_visible_devices=False)
    device = choose_device()  # also of a single process: that there is none is said before any work
    if world_size() == 1:
        yield
        return
    import torch
    import torch.distributed as dist

    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    global _group, _sharing
    failed = True
    try:
        _sharing = _ask_who_shares()
        yield
        dist.barrier()  # none leaves while another still needs what it holds
        failed = False
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "Connection" not in str(error):
            raise
        found = str(error).partition("\n")[0]
        what, fix = "another process has ended", "see its message"
        raise SurgdinoError(what, place=f"process {rank()}", found=shown(found, 200), fix=fix) from error
    finally:
        _group = _sharing = None
        if not (failed and device.type == "cuda"):  # NCCL would wait here for processes that wait for this one
            dist.destroy_process_group()


@contextmanager
def main_first() -> Iterator[None]:
    """Run the block in the main process first; then in the others, which find its files.

    Raises:
        SurgdinoError: in the others, where the main process failed.
    """
    if is_main():
        failed = 1.0
        try:
            yield
            failed = 0.0
        finally:
            _broadcast(failed)
    else:
        _stop_if(*_broadcast(1.0))
        yield


def from_main(compute: Callable[[], float]) -> float:
    """The number that the main process computes, in every process; the others wait for it, hours if need be.

    Raises:
        SurgdinoError: in the others, where the main process failed.
    """
    answer, failed = 0.0, 1.0
    try:
        if is_main():
            answer, failed = compute(), 0.0
    finally:
        answer, failed = _broadcast(answer, failed)
    _stop_if(failed)
    return answer


def meet() -> None:
    """Wait until every process is here, hours if need be."""
    if world_size() > 1:
        import torch.distributed as dist

        dist.monitored_barrier(group=_patient_group())


def _broadcast(*values: float) -> list[float]:
    """The main process's values, in every process."""
    if world_size() == 1:
        return list(values)
    import torch
    import torch.distributed as dist

    tensor = torch.tensor(values, dtype=torch.float64)
    dist.broadcast(tensor, 0, group=_patient_group())
    return tensor.tolist()


def _stop_if(failed: float) -> None:
    if failed:
        raise SurgdinoError("the first process failed", place=f"process {rank()}", fix="see its message")


def _ask_who_shares() -> float:
    """`sharing`, of what the processes tell each other of theirs."""
    import torch.distributed as dist

    own: tuple[str, set[int]] = (platform.node(), affinity())
    everyone: list[Any] = [None] * world_size()
    dist.all_gather_object(everyone, own, group=_patient_group())
    here = [processors for node, processors in everyone if node == own[0]]
    return len(own[1]) / sum(1 / sum(one in processors for processors in here) for one in own[1])


def _patient_group() -> Any:
    """All processes, on the processors, with a patience of days; made by all of them at once."""
    global _group
    if _group is None:
        import torch.distributed as dist

        _group = dist.new_group(backend="gloo", timeout=_PATIENCE)
    return _group
