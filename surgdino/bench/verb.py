"""`surgdino bench step|data|store`: is it the disk, the CPU or the GPU that binds on this machine?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.console import Console

from surgdino.bench.report import Report, print_report, write_report
from surgdino.config import typed
from surgdino.errors import SurgdinoError


@dataclass(frozen=True)
class BenchSettings:
    """The `bench` section of the configuration, key for key."""

    seconds: float = 4.0

    def __post_init__(self) -> None:
        if not self.seconds > 0:
            raise SurgdinoError("unusable setting", place="bench.seconds", expected="more than 0", found=self.seconds)


def main(cfg: Mapping[str, Any], subject: str) -> int:
    """Measure, print, and append to `bench.json` in run.dir where one is given."""
    settings = typed(BenchSettings, cfg["bench"], "bench")
    measure: Callable[[Mapping[str, Any], float], Report] = import_module(f"surgdino.bench.{subject}").measure
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)  # a pipe has no width of its own
    with Console(stderr=True).status(f"measuring: bench {subject}"):
        report = measure(cfg, settings.seconds)
    print_report(console, report)
    if cfg["run"]["dir"] is not None:
        file = write_report(Path(cfg["run"]["dir"]), subject, report)
        console.print(f"[bold]figures[/bold]  {file}", soft_wrap=True, highlight=False)
    return 0
