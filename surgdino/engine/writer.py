"""Writing beside the training: copies on the host, and one thread that writes them in order."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from surgdino import console
from surgdino.errors import SurgdinoError


def host_copy(tree: Any, keep: bool = True) -> Callable[[], Any]:
    """Begin to copy nested dicts and lists of tensors to the host, sharded tensors in one piece; for all processes.

    A GPU's tensors go to pinned memory, behind the work that is queued: the host does not wait, and the GPU holds
    nothing twice. What changes the tensors afterwards does not change the copies.

    Args:
        keep: False in a process that only takes part in gathering.

    Returns:
        A function that waits until all has arrived, in any thread, and returns the copies.
    """
    copies = _copied(tree, keep)
    arrived = torch.cuda.Event() if torch.cuda.is_initialized() else None
    if arrived is not None:
        arrived.record()

    def get() -> Any:
        if arrived is not None:
            arrived.synchronize()
        return copies

    return get


def _copied(tree: Any, keep: bool) -> Any:
    if isinstance(tree, dict):
        return {key: _copied(value, keep) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(_copied(value, keep) for value in tree)
    if not isinstance(tree, Tensor):
        return tree
    tensor = tree.full_tensor() if isinstance(tree, DTensor) else tree
    return tensor.detach().to("cpu", non_blocking=True, copy=True) if keep else None


class Writer:
    """A thread that writes one thing at a time, in order.

    What could not be written is raised by the next `submit` or `wait`: at the next save, or at the end of the run.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "writer")
        self._pending: Future[Any] | None = None

    def submit(self, write: Callable[[], Any]) -> None:
        """Call `write` in the thread, once what is being written has ended."""
        self.wait()
        self._pending = self._thread.submit(write)

    def wait(self) -> None:
        """Return when nothing is being written.

        Raises:
            SurgdinoError: what `write` raised.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self.wait()
        except SurgdinoError as fault:
            if error is None:
                raise
            console.warn(fault.line())
