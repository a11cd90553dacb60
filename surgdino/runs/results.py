"""Scores as `results.json`, `per_operation.csv`, `per_frame.csv` and on the terminal, the same for every verb."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from surgdino import console
from surgdino.csv_files import write_csv
from surgdino.metrics.arrays import as_json
from surgdino.metrics.scores import ClassTable, Score, TaskScores
from surgdino.paths import write_text
from surgdino.runs.names import Pseudonyms
from surgdino.wording import counted

RESULTS, PER_OPERATION, PER_FRAME = "results.json", "per_operation.csv", "per_frame.csv"
_BAR = 12  # characters
_WIDE = 100  # characters of a terminal that has room for bars
_LONG = 30  # classes; of more, the table shows those with the most frames


def write_results(
    folder: Path, task: str, scores: TaskScores, *, facts: Mapping[str, Any], names: Pseudonyms | None = None
) -> Path:
    """Write `results.json`, `per_operation.csv` and, where frames have scores, `per_frame.csv`; gives the first's path.

    The same scores and facts give the same bytes.

    Args:
        facts: what a reader needs beside the numbers, each under a key of its own: split, seed, versions, data hash,
            checkpoint, leak stamp, command. Plain JSON values, arrays, dataclasses or paths.
        names: of the operations, which are written as it says.
    """
    own = content_of(task, scores)
    if taken := sorted(facts.keys() & own.keys()):
        raise ValueError(f"facts may not be named {', '.join(taken)}")
    values = {key: str(fact) if isinstance(fact, Path) else fact for key, fact in facts.items()}
    names = names or Pseudonyms()
    first = {key: own.pop(key) for key in ("task", "headline")}
    content = names.hide(as_json({**first, **values, **own}))
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False, default=str)
    path = write_text(folder / RESULTS, text + "\n")
    write_per_operation(folder, [(row.protocol, row.name, names.hide(row.per_operation)) for row in scores.table])
    if scores.frames is not None:
        write_csv(folder / PER_FRAME, ("video", "frame", scores.frames.measure, "said", "right"), scores.frames.rows)
    return path


def content_of(task: str, scores: TaskScores) -> dict[str, Any]:
    """The scores as results.json has them, before `as_json`."""
    name, value = scores.headline
    return {
        "task": task,
        "headline": {"name": name, "protocol": scores.headline_row.protocol, "value": value},
        "operations": scores.operations,
        "notes": scores.notes,
        "scores": [_row(row) for row in scores.table],
        "classes": scores.classes,
        "confusions": scores.confusions,
    }


def write_per_operation(folder: Path, measures: Iterable[tuple[str, str, Mapping[str, float | None]]]) -> None:
    """Write `per_operation.csv` of (protocol, name, operation -> value); an undefined value is an empty cell."""
    rows = [
        (operation, protocol, name, "" if value is None or math.isnan(value) else repr(float(value)))
        for protocol, name, values in measures
        for operation, value in values.items()
    ]
    write_csv(folder / PER_OPERATION, ("operation", "protocol", "metric", "value"), rows)


def print_scores(
    scores: TaskScores, *, leakage: Mapping[str, Any] | None = None, details: bool = False, where: str = RESULTS
) -> None:
    """Print the headline, then every number in one matrix, then the notes; as in the report, shares are in %.

    "± operations" is the standard deviation over operations; "± phases" the one that the protocol prescribes.

    Args:
        leakage: what the leak guard says of the tested operations, `LeakReport.as_dict`.
        details: print a table a protocol, with intervals, and the classes of the headline's protocol.
        where: what else holds those.
    """
    if leakage:
        print_stamp(leakage)
    console.say(_headline(scores), "bold")
    if details or len(scores.protocols) == 1:
        for protocol in scores.protocols:
            console.table(_score_table([row for row in scores.table if row.protocol == protocol], scores))
    else:
        _print_matrix(scores, where)
    if details:
        shown = scores.headline_row.protocol
        for table in [t for t in scores.classes if t.protocol == shown] or scores.classes[:1]:
            console.table(_class_table(table, with_bars=console.width() >= _WIDE))
    for note in scores.notes:
        console.warn(note)


def _headline(scores: TaskScores) -> str:
    row = scores.headline_row
    return in_words(row.name, row.protocol, row.value, row.low, row.high, row.unit, scores.operations)


def in_words(name: str, protocol: str, value: float, low: float, high: float, unit: str, operations: int) -> str:
    """`accuracy 79.4 % (95 % interval 74.1 to 84.0), phase/script, 8 operations`."""
    sign = " pixels" if unit == "pixels" else " %"
    interval = "" if math.isnan(low) else f" (95 % interval {_number(low, unit)} to {_number(high, unit)})"
    return f"{name} {_number(value, unit)}{sign}{interval}, {protocol}, {counted(operations, 'operation')}"


def _print_matrix(scores: TaskScores, where: str) -> None:
    """A row a metric, a column a protocol."""
    cells = {(row.name, row.protocol): row for row in scores.table}
    task = f"{scores.headline_row.protocol.partition('/')[0]}/"
    names = list(dict.fromkeys(row.name for row in scores.table))
    rows = []
    for name in names:
        found = [cells.get((name, protocol)) for protocol in scores.protocols]
        unit = next(row.unit for row in found if row)
        rows.append([_with_unit(name, unit), *("" if row is None else _with_spread(row) for row in found)])
    heads = ["metric", *(protocol.removeprefix(task) for protocol in scores.protocols)]
    caption = f"Shares in %, ± over operations. Intervals, classes and single operations: {where}"
    first = names.index(scores.headline_row.name)
    console.grid(f"{scores.task}, by protocol", heads, rows, caption=caption, bold=(first,))


def _with_unit(name: str, unit: str) -> str:
    return f"{name} (pixels)" if unit == "pixels" else name


def _with_spread(row: Score) -> str:
    value = _number(row.value, row.unit)
    return value if math.isnan(row.std) else f"{value} ± {_number(row.std, row.unit)}"


def _interval(row: Score) -> str:
    return "-" if math.isnan(row.low) else f"{_number(row.low, row.unit)} to {_number(row.high, row.unit)}"


def print_stamp(leakage: Mapping[str, Any]) -> None:
    """Print what the leak guard says of the tested operations, unless they are known to be new."""
    if leakage["stamp"]:
        title, colour = ("NOT KNOWN", "yellow") if leakage["state"] == "unknown" else ("LEAK", "red")
        console.table(Panel(Text(leakage["stamp"], f"bold {colour}"), title=title, border_style=colour, expand=False))


def _row(row: Score) -> dict[str, Any]:
    found = {
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
        found[f"std_over_{row.own_std_over}"] = row.own_std
    return found


def _score_table(rows: Sequence[Score], scores: TaskScores) -> Table:
    tested = counted(scores.operations, "operation")
    caption = f"protocol {rows[0].protocol}; shares in %"
    table = console.new_table(f"{scores.task}, {tested}", caption=caption, caption_justify="left")
    table.add_column("metric", no_wrap=True)
    table.add_column("value", justify="right", style="bold", no_wrap=True)
    table.add_column("± operations", justify="right", no_wrap=True)
    table.add_column("95 % interval", no_wrap=True)
    if undefined := any(row.n < scores.operations for row in rows):
        table.add_column("operations", justify="right")
    own = next((row.own_std_over for row in rows if row.own_std_over), "")
    if own:
        table.add_column(f"± {own}", justify="right", no_wrap=True)
    for row in rows:
        style = "cyan" if row == scores.headline_row else ""
        cells = [_number(row.value, row.unit), _number(row.std, row.unit), _interval(row)]
        if undefined:
            cells.append(str(row.n))
        if own:
            cells.append(_number(row.own_std, row.unit))
        table.add_row(Text(_with_unit(row.name, row.unit), style), *cells)
    return table


def _class_table(table: ClassTable, *, with_bars: bool) -> Table:
    rows = _most_frequent(table.rows)
    left_out = len(table.rows) - len(rows)
    more = f"; {left_out} rarer ones are in {RESULTS}" if left_out else ""
    caption = f"protocol {table.protocol}{more}"
    shown = console.new_table(f"by {table.title}", caption=caption, caption_justify="left", padding=(0, 1, 0, 0))
    shown.add_column(table.title, no_wrap=True)
    measures = list(next(iter(rows.values())))
    cells = {name: [_cell(measure, row[measure]) for measure in measures] for name, row in rows.items()}
    for place, measure in enumerate(measures):  # a long heading wraps, a number never does
        width = max(len(row[place]) for row in cells.values())
        shown.add_column(measure.replace("_", " "), justify="right", min_width=width)
    if with_bars:
        shown.add_column("", no_wrap=True)
    for name, row in rows.items():
        shown.add_row(name, *cells[name], *([console.share_bar(row[measures[0]], _BAR)] if with_bars else []))
    return shown


def _most_frequent(rows: Mapping[str, Mapping[str, float]]) -> Mapping[str, Mapping[str, float]]:
    """Of very many classes those with the most frames, in their own order."""
    if len(rows) <= _LONG or any("frames" not in row for row in rows.values()):
        return rows
    kept = set(sorted(rows, key=lambda name: -rows[name]["frames"])[:_LONG])
    return {name: row for name, row in rows.items() if name in kept}


def _cell(measure: str, value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else _number(value, "pixels" if measure == "hd95" else "")


def _number(value: float, unit: str) -> str:
    return "-" if math.isnan(value) else f"{value if unit == 'pixels' else 100 * value:.1f}"
