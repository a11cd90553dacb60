"""Processes that read what people hand in: a crash or endless memory of a decoder happens there, and we go on.

`crew` lends some of them. They are started with the caller's module path and nothing else: no `__main__` that would be
run again, no folder of data from which Python would import. One is kept for the next crew until it has waited a while.
"""

from __future__ import annotations

import json
import os
import queue
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any

from surgdino import machine
from surgdino.errors import SurgdinoError

# Bytes of memory that one process may take; a 4K recording needs less than one GiB on a few threads.
MEMORY_LIMIT = min(6 << 30, machine.memory() * 3 // 4)
_IDLE, _GRACE = 60.0, 10.0  # seconds: to wait for work, and to end in
SILENCE = 120.0  # seconds that a process may neither say anything nor read on
_LOOKS = 8  # at it in that time; a machine that slept, or a run that was stopped for a while, is one look late
_STOPPED = 143  # exit status
_START = "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from {} import {} as start; start()"

# A function for `crew`: its last argument takes what it has to say while it works.
Work = Callable[..., Any]
Ask = Callable[..., "Future[Any]"]


class CrashError(Exception):
    """The process ended in the middle of its work; the text says how."""


class HangError(CrashError):
    """The process did not get on with its work and was ended."""


def start(module: str, function: str, *arguments: str, **more: Any) -> subprocess.Popen:
    """Start a process that calls a function of ours; it imports from where we do, never from the working folder."""
    command = [sys.executable, "-P", "-c", _START.format(module, function), json.dumps(sys.path), *arguments]
    return subprocess.Popen(command, **more)


class _Worker:
    """One process; used by one thread at a time."""

    def __init__(self) -> None:
        self._process: subprocess.Popen | None = None
        self._connection: Connection
        self._errors: IO[bytes]

    def run(self, file: Path, function: Work, arguments: tuple, hear: Callable[[Any], None]) -> Any:
        """What `function` returns or raises; exceptions that are not ours become one about `file`."""
        for again in (True, False):
            fresh = self._process is None
            if fresh:
                self._start()
            try:
                # A process that is used again was started elsewhere, perhaps: paths count from where we are.
                self._connection.send((Path.cwd(), file, function, arguments))
                while True:
                    kind, value = self._next()
                    if kind == "raised":
                        raise value
                    if kind == "returned":
                        return value
                    hear(value)
            except (EOFError, OSError):
                how = self.end()
                if how is None and again and not fresh:
                    continue  # it had waited for work too long
                raise CrashError(how or "ended") from None
        raise AssertionError

    def _next(self) -> tuple[str, Any]:
        """What the process sends; it may take its time as long as it reads on or its disk keeps it waiting."""
        before, quiet = "", 0
        while not self._connection.poll(SILENCE / _LOOKS):
            now = self._progress()
            quiet = quiet + 1 if now == before else 0
            before = now
            if quiet >= _LOOKS and self._process is not None:
                self._process.kill()
                self.end()
                raise HangError(f"did not get on for {SILENCE:g} seconds and was ended")
        return self._connection.recv()

    def _progress(self) -> str:
        """Something that changes while the process reads; the system's own counts of it."""
        process = Path(f"/proc/{self._process.pid}") if self._process else Path()
        with suppress(OSError):
            waits = (process / "stat").read_text().rpartition(")")[2].split()[0] == "D"
            return (process / "io").read_text().split("\n")[0] + (f" {time.monotonic()}" if waits else "")
        return ""

    def end(self) -> str | None:
        """Let the process end; how it died, or None where it ended by itself."""
        if self._process is None:
            return None
        self.hang_up()
        try:
            status = self._process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        self._process = None
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        self._errors.close()
        if status == -signal.SIGKILL:
            return "was killed, perhaps for lack of memory"
        if status < 0:
            return f"crashed ({signal.Signals(-status).name})"
        return f"failed ({lines[-1] if lines else f'exit status {status}'})" if status else None

    def interrupt(self) -> None:
        """Ask for an end at the next chance, and insist after a while; from any thread."""
        if self._process is not None:
            self._process.terminate()
            killer = threading.Timer(_GRACE, self._process.kill)
            killer.daemon = True
            killer.start()

    def hang_up(self) -> None:
        """Tell an idle process that it can go."""
        if self._process is not None:
            self._connection.close()

    def _start(self) -> None:
        self._connection, there = Pipe()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the process has ended
        with there:
            number, none, errors = there.fileno(), subprocess.DEVNULL, self._errors
            pipes = {"pass_fds": [number], "stdin": none, "stdout": errors, "stderr": errors}
            self._process = start(__name__, "serve", str(number), **pipes)


_spare: list[_Worker] = []  # at most one
os.register_at_fork(after_in_child=_spare.clear)


@contextmanager
def crew(size: int) -> Iterator[Ask]:
    """Yield `ask(file, function, *arguments, hear=None)`: a future of what `function(*arguments, say)` returns.

    `size` processes take what is asked for in turn. On the way out, what waits is dropped and what runs is stopped.
    The future raises `CrashError` where the process did not survive, `HangError` where it did not get on, and a
    SurgdinoError about `file` for any fault.
    """
    workers = [_Worker() for _ in range(size)]
    with suppress(IndexError):  # threads of a Dask worker may ask at once
        workers[0] = _spare.pop()
    free: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
    for worker in workers:
        free.put(worker)

    def work(file: Path, function: Work, arguments: tuple, hear: Callable[[Any], None]) -> Any:
        worker = free.get()
        try:
            return worker.run(file, function, arguments, hear)
        finally:
            free.put(worker)

    def ask(file: Path, function: Work, *arguments: Any, hear: Callable[[Any], None] = lambda said: None) -> Future:
        return threads.submit(work, file, function, arguments, hear)

    threads = ThreadPoolExecutor(size)
    try:
        yield ask
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        idle = []
        with suppress(queue.Empty):
            while True:
                idle.append(free.get_nowait())
        for worker in workers:
            if worker not in idle:
                worker.interrupt()
        threads.shutdown()
        if idle and not _spare:
            _spare.append(idle.pop(0))
        for worker in idle:
            worker.hang_up()
        for worker in idle:
            worker.end()


def serve() -> None:
    """The process's side: work that comes through the connection, until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the parent ends the workers
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_STOPPED))
    limit_memory()
    connection = Connection(int(sys.argv[2]))
    requests: queue.Queue[tuple] = queue.Queue()
    threading.Thread(target=_receive, args=(connection, requests), daemon=True).start()
    while True:
        try:
            here, file, function, arguments = requests.get(timeout=_IDLE)
        except queue.Empty:
            return
        os.chdir(here)
        connection.send(_answer(file, function, arguments, lambda said: connection.send(("said", said))))


def limit_memory(most: int = MEMORY_LIMIT) -> None:
    """Make this process fail at that many bytes, before the machine begins to end others for it."""
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most, hard))


def _answer(file: Path, function: Work, arguments: tuple, say: Callable[[Any], None]) -> tuple[str, Any]:
    try:
        return "returned", function(*arguments, say)
    except SurgdinoError as error:
        return "raised", error
    except MemoryError:
        what, found = "takes too much memory to read", f"more than {MEMORY_LIMIT / 2**30:.0f} GiB, or than there is"
        return "raised", SurgdinoError(what, file=file, found=found, fix="re-encode it or leave it out")
    except Exception as error:
        found = f"{type(error).__name__}: {error}"
        return "raised", SurgdinoError("cannot be read", file=file, found=found, fix="re-encode it or leave it out")


def _receive(connection: Connection, requests: queue.Queue[tuple]) -> None:
    with suppress(EOFError, OSError):
        while True:
            requests.put(connection.recv())
    os.kill(os.getpid(), signal.SIGTERM)  # the parent is gone or wants no more
    threading.Event().wait(_GRACE)
    os._exit(1)
