"""What this process may use of the machine: processors, memory, shared memory. What a container allows counts.

Containers and batch systems limit a process by control groups (cgroups, version 1 or 2): a quota of processor time and
a limit of memory, its own or of any group around it. Neither shows in the affinity or in the size of the machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

SHARED = Path("/dev/shm")  # where Linux keeps shared memory
_ROOT = Path("/")


def cores() -> int:
    """Processors that this process may use: those of its affinity, no more than the quotas of its control groups."""
    quotas = [text.split() for text in _limits("cpu", "cpu.max")]
    version_1 = (_limits("cpu", f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    quotas += map(list, zip(*version_1, strict=True))
    limited = [int(quota) / int(period) for quota, period in quotas if quota not in ("max", "-1")]
    return max(1, int(min([len(affinity()), *limited])))


def affinity() -> set[int]:
    """The numbers of the processors that this process is bound to; all of the machine's where nothing binds it."""
    return os.sched_getaffinity(0)


def all_cores() -> int:
    """Processors of the machine, whoever may use them."""
    return os.cpu_count() or 1


def memory() -> int:
    """Bytes that this process may use: those of the machine, no more than its control groups allow."""
    limits = [*_limits("memory", "memory.max"), *_limits("memory", "memory.limit_in_bytes")]
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *(int(limit) for limit in limits if limit != "max")])


def free_shared_memory() -> int | None:
    """Bytes that are free in /dev/shm; None where the system has no such folder."""
    with suppress(OSError):
        status = os.statvfs(SHARED)
        return status.f_bavail * status.f_frsize
    return None


def _limits(controller: str, file: str) -> Iterator[str]:
    """What `file` says in this process's control group and in each around it, as far as they can be seen from here.

    A container may see its own group as the root, or under the path that it has on the host.
    """
    for line in _read("proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        for base in (controller,) if controllers else ("", "unified"):
            group = PurePosixPath(path)
            for around in (group, *group.parents):
                text = _read(f"sys/fs/cgroup/{base}{around}/{file}").strip()
                if text:
                    yield text


def _read(path: str) -> str:
    with suppress(OSError, ValueError):
        return (_ROOT / path).read_text(encoding="utf-8")
    return ""
