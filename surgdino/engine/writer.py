"""Writing beside the training: one thread that writes in order what was copied to the host."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

from surgdino import console
from surgdino.errors import SurgdinoError


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
