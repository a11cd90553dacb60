"""What a container allows counts, not what it shows."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from surgdino import machine

GB = 2**30
V2, V1 = "sys/fs/cgroup", "sys/fs/cgroup/cpu"


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A machine of 64 processors and 256 GiB, with these files."""
    sizes = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 256 * GB // 4096}
    monkeypatch.setattr(machine, "_ROOT", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))
    monkeypatch.setattr(os, "sysconf", sizes.__getitem__)

    def write(files: dict[str, str]) -> None:
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(f"{text}\n")

    return write


CASES = {
    "no groups": ({}, 64, 256),
    "no limit, version 2": (
        {"proc/self/cgroup": "0::/", f"{V2}/cpu.max": "max 100000", f"{V2}/memory.max": "max"}, 64, 256,
    ),
    "a container, version 2": (
        {"proc/self/cgroup": "0::/", f"{V2}/cpu.max": "650000 100000", f"{V2}/memory.max": str(32 * GB)}, 6, 32,
    ),
    "a job around the group, version 2": (
        {
            "proc/self/cgroup": "0::/job/step", f"{V2}/job/step/cpu.max": "max 100000",
            f"{V2}/job/cpu.max": "50000 100000",
        }, 1, 256,
    ),
    "version 1": (
        {
            "proc/self/cgroup": "5:memory:/\n4:cpu,cpuacct:/docker/12ab\n0::/",
            f"{V1}/cpu.cfs_quota_us": "800000", f"{V1}/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": str(16 * GB),
        }, 8, 16,
    ),
    "version 1, no limit": (
        {
            "proc/self/cgroup": "5:memory:/\n4:cpu:/",
            f"{V1}/cpu.cfs_quota_us": "-1", f"{V1}/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
        }, 64, 256,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("files", "cores", "gigabytes"), CASES.values(), ids=CASES)
def test_quotas_and_limits_of_control_groups_bind(files: dict[str, str], cores: int, gigabytes: int, system) -> None:
    system(files)
    assert machine.cores() == cores
    assert machine.memory() == gigabytes * GB


def test_nothing_else_asks_the_system_for_its_size() -> None:
    package = Path(machine.__file__).parent
    asking = ("sched_getaffinity", "cpu_count", "SC_PHYS_PAGES", "SC_NPROCESSORS")
    files = [path.name for path in package.rglob("*.py") if any(word in path.read_text() for word in asking)]
    assert files == ["machine.py"]
