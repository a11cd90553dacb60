"""Where numbers go: `results.json`, `per_operation.csv` and a table on the terminal, the same for every verb."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from surgdino.metrics.arrays import as_json
from surgdino.metrics.scores import ClassTable, Score, TaskScores
from surgdino.paths import atomic_write

RESULTS, PER_OPERATION = "results.json", "per_operation.csv"
OWN_KEYS = ("task", "headline", "operations", "scores", "classes", "notes")
_BAR = 12  # characters
_WIDE = 100  # characters of a terminal that has room for bars
_LONG = 30  # classes; of more, the table shows those with the most frames


def write_results(folder: Path, task: str, scores: TaskScores, *, facts: Mapping[str, Any]) -> Path:
    """Write `results.json` and `per_operation.csv`. The same scores and facts give the same bytes.

    Args:
        folder: made if need be.
        task: `phase`, `triplet` or `segmentation`.
        scores: of a panel.
        facts: what a reader needs beside the numbers, each under its own key: split, seed, versions, data hash,
            checkpoint, leak stamp, command. Values as JSON knows them, or arrays, dataclasses and paths.

    Returns:
        The path of `results.json`.

    Raises:
        SurgdinoError: the file system refused.
        ValueError: a fact under a key that the numbers have.
    """
    taken = sorted(set(facts) & set(OWN_KEYS))
    if taken:
        raise ValueError(f"facts may not be named {', '.join(taken)}")
    name, value = scores.headline
    content = {
        "task": task,
        "headline": {"name": name, "protocol": scores.headline_row.protocol, "value": value},
        **{key: str(fact) if isinstance(fact, Path) else fact for key, fact in facts.items()},
        "operations": scores.operations,
        "notes": scores.notes,
        "scores": [_row(row) for row in scores.table],
        "classes": scores.classes,
    }
    text = json.dumps(as_json(content), indent=2, ensure_ascii=False, allow_nan=False, default=str)
    path = folder / RESULTS
    with atomic_write(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    with atomic_write(folder / PER_OPERATION) as temporary:
        temporary.write_text(per_operation_csv(scores.table), encoding="utf-8")
    return path


def per_operation_csv(table: Sequence[Score]) -> str:
    """A row an operation and metric, in full precision; an undefined value is an empty cell."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("operation", "protocol", "metric", "value"))
    for row in table:
        for operation, value in row.per_operation.items():
            writer.writerow((operation, row.protocol, row.name, "" if math.isnan(value) else repr(float(value))))
    return stream.getvalue()


def print_scores(
    console: Console, scores: TaskScores, classes: Sequence[str] | None = None, *, leak: str | None = None
) -> None:
    """Print every protocol's numbers, then the classes of the headline's protocol, then what a reader must know.

    "± operations" is the standard deviation over operations; "± phases" the one that the protocol itself prescribes.

    Args:
        classes: those to show by name, in this order; None shows all (of very many, the commonest).
        leak: the stamp of a result whose test operations training has seen.
    """
    if leak:
        console.print(Panel(Text(leak, "bold red"), title="LEAK", border_style="red", expand=False))
    for protocol in scores.protocols:
        console.print(_score_table([row for row in scores.table if row.protocol == protocol], scores))
    shown = scores.headline_row.protocol
    for table in [t for t in scores.classes if t.protocol == shown] or scores.classes[:1]:
        console.print(_class_table(table, classes, with_bars=console.width >= _WIDE))
    for note in scores.notes:
        console.print(Text("! ", "yellow").append(note, "default"), soft_wrap=True)


def _row(row: Score) -> dict[str, Any]:
    told = {
        "name": row.name,
        "protocol": row.protocol,
        "value": row.value,
        "unit": row.unit,
        "std_over_operations": row.std,
        "interval_95": [row.low, row.high],
        "operations": row.n,
        "per_operation": row.per_operation,
    }
    if row.own_std_over:
        told[f"std_over_{row.own_std_over}"] = row.own_std
    return told


def _score_table(rows: Sequence[Score], scores: TaskScores) -> Table:
    table = Table(title=f"{scores.task}, {_plural(scores.operations)}", title_justify="left", title_style="bold")
    table.box, table.pad_edge = box.SIMPLE_HEAD, False
    table.caption, table.caption_justify = f"protocol {rows[0].protocol}", "left"
    table.add_column("metric", no_wrap=True)
    table.add_column("value", justify="right", style="bold", no_wrap=True)
    table.add_column("± operations", justify="right", no_wrap=True)
    table.add_column("95 % interval", no_wrap=True)
    if any(row.n < scores.operations for row in rows):
        table.add_column("operations", justify="right")
    own = next((row.own_std_over for row in rows if row.own_std_over), "")
    if own:
        table.add_column(f"± {own}", justify="right", no_wrap=True)
    for row in rows:
        name = f"{row.name} (pixels)" if row.unit == "pixels" else row.name
        style = "cyan" if row == scores.headline_row else ""
        interval = "-" if math.isnan(row.low) else f"{_number(row.low, row.unit)} to {_number(row.high, row.unit)}"
        cells = [_number(row.value, row.unit), _number(row.std, row.unit), interval]
        if any(other.n < scores.operations for other in rows):
            cells.append(str(row.n))
        if own:
            cells.append(_number(row.own_std, row.unit))
        table.add_row(Text(name, style), *cells)
    return table


def _class_table(table: ClassTable, classes: Sequence[str] | None, *, with_bars: bool) -> Table:
    chosen = {name: table.rows[name] for name in classes or () if name in table.rows}
    rows, left_out = _commonest(chosen or table.rows)
    shown = Table(title=f"by {table.title}", title_justify="left", title_style="bold")
    shown.box, shown.pad_edge, shown.padding = box.SIMPLE_HEAD, False, (0, 1, 0, 0)
    told = f"; {left_out} rarer ones are in {RESULTS}" if left_out else ""
    shown.caption, shown.caption_justify = f"protocol {table.protocol}{told}", "left"
    shown.add_column(table.title, no_wrap=True)
    measures = list(next(iter(rows.values())))
    cells = {name: [_cell(measure, row[measure]) for measure in measures] for name, row in rows.items()}
    for place, measure in enumerate(measures):  # a long heading wraps, a number never does
        width = max(len(row[place]) for row in cells.values())
        shown.add_column(measure.replace("_", " "), justify="right", min_width=width)
    if with_bars:
        shown.add_column("", no_wrap=True)
    for name, row in rows.items():
        shown.add_row(escape(name), *cells[name], *([_bar(row[measures[0]])] if with_bars else []))
    return shown


def _commonest(rows: Mapping[str, Mapping[str, float]]) -> tuple[Mapping[str, Mapping[str, float]], int]:
    """Of very many classes those with the most frames, in their own order; and how many were left out."""
    if len(rows) <= _LONG or any("frames" not in row for row in rows.values()):
        return rows, 0
    kept = set(sorted(rows, key=lambda name: -rows[name]["frames"])[:_LONG])
    return {name: row for name, row in rows.items() if name in kept}, len(rows) - _LONG


def _cell(measure: str, value: float) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    if math.isnan(value):
        return "-"
    return f"{value:.1f}" if measure == "hd95" else f"{value:.3f}"


def _number(value: float, unit: str) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.1f}" if unit == "pixels" else f"{value:.4f}"


def _bar(share: float) -> Text:
    filled = 0 if math.isnan(share) else min(max(round(share * _BAR), 0), _BAR)
    return Text("█" * filled, "cyan").append("·" * (_BAR - filled), "dim")


def _plural(operations: int) -> str:
    return f"{operations} operation" + ("" if operations == 1 else "s")
