"""SIGTERM and Ctrl-C as a question that the loop asks after each step, so that it can save before it goes."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


class Stop:
    """Whether a signal has asked the run to end."""

    def __init__(self) -> None:
        self.requested = False

    def until(self, batches: Iterable[T]) -> Iterator[T]:
        """The batches until a stop is requested.

        A launcher sends its signal to the loader's workers too, and the loader reports their death as an error in this
        process: after a request that is no error.
        """
        try:
            for batch in batches:
                yield batch
                if self.requested:
                    return
        except RuntimeError:
            if not self.requested:
                raise


@contextmanager
def stop_signals() -> Iterator[Stop]:
    """Turn the first SIGTERM or Ctrl-C into a request; a second Ctrl-C interrupts at once.

    Outside the main thread, where Python cannot handle signals, it changes nothing.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def request(number: int, frame: object) -> None:
        if stop.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.requested = True
        # From now on the death of a loader worker must not raise in the middle of saving.
        before.setdefault(signal.SIGCHLD, signal.signal(signal.SIGCHLD, signal.SIG_DFL))

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, request)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
