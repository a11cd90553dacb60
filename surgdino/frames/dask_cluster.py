"""A Dask cluster that works for us: of its own on this machine, or one that runs; found, checked, asked, and let go."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from surgdino import __version__, console
from surgdino.discovery import require_packages
from surgdino.errors import SurgdinoError, first_of, from_os_error, shown
from surgdino.frames.worker import CrashError, Work, crew
from surgdino.records import read_record

if TYPE_CHECKING:
    from distributed import Client
    from distributed import Future as DaskFuture

DASK = "dask"
_CONNECT, _TELL = 15.0, 1.0  # seconds: to find a scheduler in, and between two words on one video
_SHOWN, _HERE = 3, "127.0.0.1"
# Workers may start processes of their own (loaders); of many tasks those that wait do so at the scheduler, where no
# lost worker is counted against them; nobody is told anything through HTTP.
_SETTINGS = {
    "distributed.worker.daemon": False,
    "distributed.scheduler.worker-saturation": 1.0,
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
}
_QUIET = logging.CRITICAL  # what a user must know of lost workers and schedulers, we say


class EngineError(SurgdinoError):
    """Work cannot be done where it should be, whichever file it is on."""


@dataclass(frozen=True)
class _Home:
    """What a worker must have in common with us; `marks` are files that we put into the folders it writes to.

    `numbered`: workers of this machine are called 0, 1, ..., and each takes the GPU of its number.
    """

    version: str
    numbered: bool
    reads: tuple[Path, ...]
    marks: tuple[Path, ...]

    def unfit(self) -> EngineError | None:
        """What keeps this process from the work."""
        where = f"the Dask worker on {platform.node()}"
        if self.version != __version__:
            what, fix = "is another version of surgdino", "install the same one everywhere and restart the workers"
            return EngineError(f"{where} {what}", expected=self.version, found=__version__, fix=fix)
        fix = "workers need the same folders under the same paths (docs/cluster.md)"
        for folder in self.reads:
            if not folder.is_dir():
                return EngineError(f"{where} does not see this folder", file=folder, fix=fix)
        for mark in self.marks:
            if not mark.exists():
                what = "does not see this folder, or another one of that name"
                return EngineError(f"{where} {what}", file=mark.parent, fix=fix)
            if not os.access(mark.parent, os.W_OK):
                return EngineError(f"{where} may not write here", file=mark.parent, fix="give its user the right to")
        return None


@dataclass(frozen=True, repr=False)
class _Task:
    """What a worker is sent; its call is the work. Faults are returned: Dask would log what is raised, paths included.

    Attributes:
        apart: whether in a process of its own.
        key: Dask's name for it, which tells nothing.
    """

    home: _Home
    topic: str
    key: str
    apart: bool
    file: Path
    function: Work
    arguments: tuple

    def __call__(self) -> Any:
        from distributed import get_worker

        if self.home.numbered:
            os.environ["LOCAL_RANK"] = str(get_worker().name)
        try:
            if unfit := self.home.unfit():
                return unfit
            if not self.apart:
                return self.function(*self.arguments)
            with crew(1) as ask:
                return ask(self.file, self.function, *self.arguments, hear=self._teller()).result()
        except (SurgdinoError, CrashError) as error:
            return error

    def _teller(self) -> Callable[[Any], None]:
        """Sends what is said to the one who asked; not too often."""
        from distributed import get_worker

        worker, last = get_worker(), -_TELL

        def tell(said: Any) -> None:
            nonlocal last
            if time.monotonic() - last >= _TELL:
                last = time.monotonic()
                worker.log_event(self.topic, {"key": self.key, "said": said})

        return tell


@dataclass(eq=False)
class _Asked:
    file: Path
    hear: Callable[[Any], None]
    answer: Future = field(default_factory=Future)
    future: DaskFuture | None = None


class Cluster:
    """A connected Dask cluster whose workers are fit for the work; what was asked of it and has not ended."""

    def __init__(self, client: Client, engine: str, home: _Home) -> None:
        self._client, self._engine, self._home = client, engine, home
        self._topic = f"surgdino-{uuid4().hex}"
        self._asked: dict[str, _Asked] = {}
        client.subscribe_topic("all", self._happened)
        client.subscribe_topic(self._topic, self._said)

    def ask(
        self,
        apart: bool,
        file: Path,
        function: Work,
        *arguments: Any,
        hear: Callable[[Any], None] = lambda said: None,
    ) -> Future:
        """A future of what the function returns; `apart` is whether in a process of its own, where it can `say`."""
        key = f"surgdino-{uuid4().hex}"
        asked = self._asked[key] = _Asked(file, hear)
        task = _Task(self._home, self._topic, key, apart, file, function, arguments)
        asked.future = self._client.submit(task, key=key, pure=False)
        asked.future.add_done_callback(self._ended)
        return asked.answer

    def refuse_unfit(self) -> None:
        """Ask every worker that is there."""
        for worker, found in self._client.run(self._home.unfit, on_error="return").items():
            if isinstance(found, EngineError):
                raise found
            if found is not None and not isinstance(found, OSError):  # not even asked; one that was just lost is none
                what, fix = "a Dask worker cannot be used", "install the same surgdino there and restart it"
                raise EngineError(what, place=worker, found=shown(f"{type(found).__name__}: {found}", 200), fix=fix)

    def drop(self) -> None:
        """Forget what has not begun; what runs on somebody's workers comes to its end."""
        with suppress(Exception):  # the scheduler may be gone
            self._client.unsubscribe_topic("all")
            self._client.unsubscribe_topic(self._topic)
            self._client.cancel([asked.future for asked in list(self._asked.values())])

    def _ended(self, future: DaskFuture) -> None:
        from distributed import CancelledError, KilledWorker

        try:
            found = future.result()
        except KilledWorker as death:
            found = CrashError(f"{death.allowed_failures + 1} Dask workers were lost while they were at it")
        except CancelledError:
            fix = "see its log; the same command continues"
            found = EngineError("the Dask scheduler is gone", place=f"data.engine={self._engine}", fix=fix)
        except Exception as error:
            found = error
        answer = self._asked.pop(str(future.key)).answer
        if isinstance(found, Exception):
            answer.set_exception(found)
        else:
            answer.set_result(found)

    def _said(self, event: tuple[float, Any]) -> None:
        asked = self._asked.get(event[1]["key"])
        if asked is not None:
            asked.hear(event[1]["said"])

    def _happened(self, event: tuple[float, Any]) -> None:
        said = event[1]
        if isinstance(said, dict) and said.get("action") == "remove-worker" and not said["expected"]:
            files = [self._asked[key].file.name for key in said["processing-tasks"] if key in self._asked]
            if files:
                console.warn(f"a Dask worker was lost; what it was at is done again: {first_of(files, _SHOWN)}")


@contextmanager
def cluster_on(engine: str, size: int, reads: Collection[Path], writes: Collection[Path]) -> Iterator[Cluster]:
    """A cluster whose workers are fit for the work; the arguments are those of `engines.crew_on`."""
    with ExitStack() as stack:
        client = stack.enter_context(_client(engine, size))
        # A change of our own also lets us see at once what others put into a folder on NFS.
        marks = [folder / f".engine.{uuid4().hex}" for folder in sorted(writes)]
        for mark in marks:
            try:
                mark.parent.mkdir(parents=True, exist_ok=True)
                mark.touch()
            except OSError as error:
                raise from_os_error(error, mark.parent) from error
            stack.callback(mark.unlink, missing_ok=True)
        cluster = Cluster(client, engine, _Home(__version__, engine == DASK, tuple(reads), tuple(marks)))
        stack.callback(cluster.drop)
        cluster.refuse_unfit()
        yield cluster


@dataclass(frozen=True)
class _SchedulerFile:
    """What we need of the file that `dask scheduler --scheduler-file` writes."""

    address: str


@contextmanager
def _client(engine: str, size: int) -> Iterator[Client]:
    require_packages(("dask", "distributed"), f"data.engine={engine}", "dask", "use data.engine=local")
    import dask
    from distributed import Client, LocalCluster

    logging.getLogger("distributed.client").setLevel(_QUIET)
    if engine == DASK:
        alone: dict[str, Any] = {
            "host": _HERE,
            "dashboard_address": None,
            "scheduler_kwargs": {"dashboard_address": f"{_HERE}:0"},
        }
        alone |= {"memory_limit": None, "silence_logs": _QUIET}
        with (
            dask.config.set(_SETTINGS),
            LocalCluster(n_workers=size, threads_per_worker=1, **alone) as cluster,
            Client(cluster, set_as_default=False) as client,
        ):
            yield client
        return
    address = engine if "://" in engine else read_record(_SchedulerFile, Path(engine), more=True).address
    try:
        asyncio.run(_reach(address))  # a Client that finds nobody waits again when it is collected
    except (OSError, ValueError) as error:  # no scheduler; no address
        fix = "start one with `dask scheduler`, or use data.engine=dask for this machine (docs/cluster.md)"
        found = shown(str(error).partition("\n")[0], 200)
        raise SurgdinoError("no Dask scheduler answers", place=f"data.engine={engine}", found=found, fix=fix) from None
    with Client(address, timeout=_CONNECT, set_as_default=False) as client:
        if not client.scheduler_info()["workers"]:
            console.say(f"waiting for the first worker of {engine}")
            client.wait_for_workers(1)
        yield client


async def _reach(address: str) -> None:
    from distributed import Security
    from distributed.comm import connect

    comm = await connect(address, timeout=_CONNECT, **Security().get_connection_args("client"))
    await comm.close()
