"""SIGTERM, Ctrl-C and failing batches as a question that the loop asks before each step, so that it can save first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from surgdino.errors import SurgdinoError

T = TypeVar("T")


class Stop:
    """Whether a signal, or batches that could not be made, have asked the run to end, and which."""

    def __init__(self) -> None:
        self.requested = False
        self.signal: int | None = None
        self.fault: SurgdinoError | None = None

    def check(self) -> None:
        """Raise what ended the batches; the loop calls it when all is saved."""
        if self.fault is not None:
            raise self.fault

    def for_memory(self, fault: SurgdinoError, *, alone: bool) -> None:
        """Keep a fault of memory until all is saved, and let go of what was computed.

        Several processes cannot save where one of them fails: it is raised, which ends them all.
        """
        if not alone:
            raise fault
        fault.__context__ = fault.__cause__ = None
        self.requested, self.fault = True, fault.with_traceback(None)

    def until(self, batches: Iterable[T], agreed: Callable[[bool], bool] = bool) -> Iterator[T]:
        """The batches until a stop is requested.

        Where they fail (a worker was killed, a stored frame is damaged) that is a request too: all processes stop at
        the same step and save, and `check` raises it. After a request it is no error: a launcher sends its signal to
        the loader's workers too.

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
        except SurgdinoError as fault:
            if not self.requested:
                self.requested, self.fault = True, fault
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


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Let SIGTERM end what runs in here as Ctrl-C does, with all locks let go; `stop_signals` inside comes first."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
