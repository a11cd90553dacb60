"""The result of a benchmark: measurements beside their limits, a verdict in words, a line of JSON."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich import box
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from surgdino import __version__, console
from surgdino.errors import from_os_error

_BAR = 12


@dataclass(frozen=True)
class Line:
    """One row: what was measured, the limit to compare it with, and the share of that limit that it reaches."""

    what: str
    measured: str
    limit: str = ""
    share: float | None = None


@dataclass(frozen=True)
class Report:
    """One benchmark on one machine.

    Attributes:
        title, setting: what was measured, and on what.
        lines: the table.
        share: the heading of its last column.
        verdict: which part limits the speed and what to do, in a sentence or two.
        notes: how it was measured, where the table does not show it.
        figures: the same numbers for machines, with units in their names.
    """

    title: str
    setting: str
    lines: Sequence[Line]
    share: str
    verdict: str
    notes: Sequence[str] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)


def print_report(report: Report) -> None:
    """The table, the verdict in a frame, the notes below."""
    console.table(Text(report.title, "bold").append(f"  {report.setting}", "not bold dim"))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    table.add_column("measured", justify="right", no_wrap=True, style="bold")
    table.add_column("limit")
    table.add_column(report.share, no_wrap=True)
    for line in report.lines:
        table.add_row(line.what, line.measured, Text(line.limit, "dim"), bar(line.share))
    console.table(table)
    console.table(Panel(report.verdict, border_style="cyan", expand=False, padding=(0, 1), highlight=True))
    for note in report.notes:
        console.table(Text(f"· {note}", "dim"))


def write_report(folder: Path, subject: str, report: Report) -> Path:
    """Append the figures to `folder/bench.json`, one JSON object a line."""
    file = folder / "bench.json"
    line = {
        "bench": subject,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "surgdino": __version__,
        "machine": platform.platform(),
        "setting": report.setting,
        **report.figures,
        "verdict": report.verdict,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line, ensure_ascii=False) + "\n")
    except OSError as error:
        raise from_os_error(error, file) from error
    return file


def bar(share: float | None) -> Text:
    """A share as a bar and in per cent; nothing where there is none."""
    if share is None:
        return Text("")
    filled = min(max(round(share * _BAR), 0), _BAR)
    percent = " <1%" if 0 < share < 0.005 else f"{share:4.0%}"
    return Text("█" * filled, "cyan").append("·" * (_BAR - filled), "dim").append(f" {percent}", "default")


def number(value: float) -> str:
    """Three significant digits, with thousands separators."""
    if value >= 100:
        return f"{round(value, 3 - len(str(int(value)))):,.0f}"
    return f"{value:.3g}"


def unit(value: float, base: str) -> str:
    """`2.1 GB`, `310 MB/s`: powers of 1000."""
    for factor, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{number(value / factor)} {prefix}{base}"
    return f"{number(value)} {base}"
