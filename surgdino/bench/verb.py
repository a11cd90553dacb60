"""`surgdino bench step|data|store`: does the disk, the CPU or the GPU limit the speed on this machine?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from rich.console import Console

from surgdino import console
from surgdino.bench.frames import BenchConfig
from surgdino.bench.report import Report, print_report, write_report
from surgdino.runs.lock import FolderLock


def main(cfg: Mapping[str, Any], subject: str) -> int:
    """Measure, print, and append to `bench.json` in run.dir where one is given."""
    config = BenchConfig.of(cfg)
    measure: Callable[[BenchConfig], Report] = import_module(f"surgdino.bench.{subject}").measure
    with Console(stderr=True).status(f"measuring: bench {subject}"):
        report = measure(config)
    print_report(report)
    if config.run.dir is not None:
        with FolderLock(config.run.dir):
            console.field("figures", write_report(config.run.dir, subject, report))
    return 0
