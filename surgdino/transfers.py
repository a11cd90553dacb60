"""Copies between the host and a GPU for which the host does not wait: through pinned memory, behind what is queued."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor


def uploaded(values: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """Values of the host on the device, with the array's type; on a CPU the same memory."""
    tensor = torch.from_numpy(np.ascontiguousarray(values)) if isinstance(values, np.ndarray) else values
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


def host_copy(tree: Any, keep: bool = True, *, copy: bool = True) -> Callable[[], Any]:
    """Begin to copy nested dicts and lists of tensors to the host, sharded tensors in one piece; for all processes.

    A GPU's tensors go to pinned memory, behind the work that is queued: the host does not wait, and the GPU holds
    nothing twice. What changes the tensors afterwards does not change the copies.

    Args:
        keep: False in a process that only takes part in gathering.
        copy: False where nothing changes the tensors meanwhile: what is on the host is then given as it is.

    Returns:
        A function that waits until all has arrived, in any thread, and returns the copies.
    """
    copies = _copied(tree, keep, copy)
    arrived = torch.cuda.Event() if torch.cuda.is_initialized() else None
    if arrived is not None:
        arrived.record()

    def get() -> Any:
        if arrived is not None:
            arrived.synchronize()
        return copies

    return get


def fetched(trees: Iterable[Any]) -> Iterator[Any]:
    """Each of what a device computes, on the host: while a GPU is at the next one already; on a CPU at once."""
    before: Callable[[], Any] | None = None
    for tree in trees:
        copied = host_copy(tree, copy=False)
        if not torch.cuda.is_initialized():
            yield copied()
            continue
        if before is not None:
            yield before()
        before = copied
    if before is not None:
        yield before()


def _copied(tree: Any, keep: bool, copy: bool) -> Any:
    if isinstance(tree, dict):
        return {key: _copied(value, keep, copy) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(_copied(value, keep, copy) for value in tree)
    if not isinstance(tree, Tensor):
        return tree
    tensor = tree.full_tensor() if isinstance(tree, DTensor) else tree
    return tensor.detach().to("cpu", non_blocking=True, copy=copy) if keep else None
