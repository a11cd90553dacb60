"""SIGTERM and Ctrl-C as a question that the loop asks before each step, so that it can save before it goes."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


class Stop:
    """Whether a signal has asked the run to end, and which."""

    def __init__(self) -> None:
        self.requested = False
        self.signal: int | None = None

    def until(self, batches: Iterable[T], agreed: Callable[[bool], bool] = bool) -> Iterator[T]:
        """The batches until a stop is requested.

        A launcher sends its signal to the loader's workers too, and the loader reports their death as an error in this
        process: after a request that is no error.

        Args:
            agreed: whether any process was asked to stop, given whether this one was. It is called before every
                step, so that all processes stop at the same one.
        """
        source = iter(batches)
        while True:
            batch = None if self.requested else self._next(source)
            if agreed(self.requested) or batch is None:
                return
            yield batch

    def _next(self, source: Iterator[T]) -> T | None:
        try:
            return next(source, None)
        except RuntimeError:
            if not self.requested:
                raise
            return None


@contextmanager
def stop_signals() -> Iterator[Stop]:
    """Turn the first SIGTERM or Ctrl-C into a request; a second Ctrl-C interrupts at once.

    SIGUSR2 is how submitit tells that a Slurm job's time is nearly up. Where a handler is installed, it is a request,
    and the handler is called at the end, when all is saved: it queues the job again.

    Outside the main thread, where Python cannot handle signals, it changes nothing.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def request(number: int, frame: object) -> None:
        if stop.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.requested, stop.signal = True, number
        # From now on the death of a loader worker must not raise in the middle of saving.
        before.setdefault(signal.SIGCHLD, signal.signal(signal.SIGCHLD, signal.SIG_DFL))

    listened_to = [signal.SIGUSR2] if callable(signal.getsignal(signal.SIGUSR2)) else []
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, *listened_to)}
    for number in list(before):
        signal.signal(number, request)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if stop.signal == signal.SIGUSR2:
        signal.raise_signal(stop.signal)
