"""Where work by video is done (`data.engine`): in processes of this machine, or by the workers of a Dask cluster.

`crew_on` lends what reads people's videos: each in a process of its own, here as there, so that a video that crashes a
decoder costs no worker. `spread` shares out work on files of ours. Workers read and write shared folders; what travels
are paths, settings and short answers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path

from surgdino import machine
from surgdino.errors import SurgdinoError
from surgdino.frames.dask_cluster import DASK, EngineError, cluster_on
from surgdino.frames.worker import Ask, CrashError, crew

__all__ = ["DASK", "LOCAL", "EngineError", "crew_on", "engine_named", "processes_for", "spread"]

LOCAL = "local"
_AHEAD = 1000  # jobs that a scheduler holds: what they are sent with is in its memory


@contextmanager
def crew_on(engine: str, size: int, *, reads: Collection[Path], writes: Collection[Path]) -> Iterator[Ask]:
    """As `crew`, on the engine: a future also raises CrashError where the workers themselves were lost with a file.

    Args:
        engine: `local`; `dask`, for `size` workers on this machine; the address or scheduler file of a running one.
        reads, writes: absolute folders that workers must see; the second are made.

    Raises:
        SurgdinoError: Dask is missing or not reached, or a worker does not see a folder.
    """
    if engine == LOCAL:
        with crew(size) as ask:
            yield ask
    else:
        with cluster_on(engine, size, reads, writes) as cluster:
            yield partial(cluster.ask, True)


def engine_named(text: str) -> str:
    """The value of `data.engine`.

    Raises:
        SurgdinoError: it names none.
    """
    if text in (LOCAL, DASK) or "://" in text or text.endswith(".json"):
        return text
    expected = "local, dask, the address of a scheduler (tcp://HOST:8786) or its scheduler file (.json)"
    raise SurgdinoError("data.engine cannot be used", expected=expected, found=text)


def spread(
    engine: str,
    size: int,
    function: Callable[..., object],
    jobs: Mapping[Path, tuple],
    writes: Collection[Path],
    *,
    ahead: int = _AHEAD,
    failed: Callable[[Path, SurgdinoError], object] | None = None,
) -> Iterator[Path]:
    """Call `function(*job)` for every job and yield its file when it is done: here in turn, or by all workers at once.

    Args:
        engine, size, writes: as for `crew_on`.
        jobs: arguments, absolute paths in them, by a file that stands for the job.
        ahead: jobs that a scheduler holds at a time.
        failed: told of a job that failed, or at which workers died again and again, and the others go on; None raises.

    Raises:
        SurgdinoError: as `crew_on`; without `failed`, what the function raises, and of workers that died.
    """
    if engine == LOCAL:
        for file, job in jobs.items():
            function(*job)
            yield file
        return
    with cluster_on(engine, size, (), writes) as cluster:
        waiting, asked = iter(jobs.items()), dict[Future, Path]()
        while True:
            for file, job in islice(waiting, ahead - len(asked)):
                asked[cluster.ask(False, file, function, *job)] = file
            if not asked:
                return
            for future in wait(asked, return_when=FIRST_COMPLETED).done:
                file = asked.pop(future)
                try:
                    future.result()
                except CrashError as death:
                    fix = "give workers more memory; the same command continues"
                    lost = EngineError("the workers died", file=file, found=str(death), fix=fix)
                    if failed is None:
                        raise lost from None
                    failed(file, lost)
                except SurgdinoError as error:
                    if failed is None or isinstance(error, EngineError):
                        raise
                    failed(file, error)
                yield file


def processes_for(workers: int, jobs: int) -> int:
    """How many to start on this machine for so many jobs: as asked, 0 for one a core."""
    return max(1, min(workers or machine.cores(), jobs))
