"""The numbers of a fine-tuned run, protocol by protocol."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from surgdino.metrics.intervals import ENOUGH
from surgdino.report.blocks import Block, Folded, Paragraph, Table
from surgdino.report.evidence import finite, headline_row
from surgdino.report.forest import Forest
from surgdino.report.forest import Row as Line
from surgdino.report.record import RunRecord
from surgdino.report.sections import Section, run_by_run

Row = Mapping[str, Any]


class Results(Section):
    """What results.json says; left out for pretraining runs."""

    id, title, order = "results", "Results", 5

    def blocks(self, records: Sequence[RunRecord]) -> list[Block]:
        """The numbers of two runs of one task stand side by side in a section of their own, so not here."""
        tasks = [record.results.get("task") for record in records if record.results]
        same_task = len(tasks) == 2 and tasks[0] == tasks[1]
        return run_by_run(records, _notes) if same_task else super().blocks(records)

    def of_run(self, record: RunRecord) -> list[Block]:
        """The headline's protocol as a forest, every protocol folded below it, then notes."""
        results = record.results or {}
        scores, top = results.get("scores", []), headline_row(record)
        if not scores:
            return _notes(record)
        protocol = (top or scores[0])["protocol"]
        blocks: list[Block] = [*_forest([row for row in scores if row["protocol"] == protocol], protocol)]
        if not results.get("runs"):  # several runs have tables of their own
            blocks.append(Folded("all numbers, every protocol", [*_tables(scores)]))
        blocks.append(Folded("every operation", [_by_operation(scores, protocol)]))
        return [*blocks, *_notes(record)]


def _forest(rows: Sequence[Row], protocol: str) -> list[Block]:
    """Shares of one protocol in %: the value, its interval, every operation as a dot."""
    lines = []
    for row in rows:
        if row.get("unit") == "pixels" or not finite(row["value"]):
            continue
        dots = {op: 100 * value for op, value in row["per_operation"].items() if finite(value)}
        low, high = (math.nan if end is None else 100 * end for end in _interval(row))
        text = f"{100 * row['value']:.1f}"
        text += f" [{low:.1f}, {high:.1f}]" if finite(low) else ""
        if not finite(low) and len(dots) > 1:
            text += f" ({', '.join(f'{value:.1f}' for value in dots.values())})"
        lines.append(Line(row["name"], text, 100 * row["value"], low, high, dots))
    note = f"Small dots: single operations. Line: 95 % interval over them, from {ENOUGH} on."
    title = f"On the tested operations, in % (protocol {protocol})"
    return [Forest(title, [("", lines)], ends=(0, 100), span=20, note=note)] if lines else []


def _tables(scores: Sequence[Row]) -> Iterator[Table]:
    """A matrix of measures and protocols, then what is behind each number."""
    names, protocols = (list(dict.fromkeys(row[key] for row in scores)) for key in ("name", "protocol"))
    known = {(row["name"], row["protocol"]): row for row in scores}
    cells = [[name, *(_shown(known.get((name, each), {}), "value") for each in protocols)] for name in names]
    heads = ("measure", *(each.partition("/")[2] or each for each in protocols))
    if len(protocols) > 1:
        yield Table(heads, cells, "Measure by protocol, in %", frozenset(range(1, len(heads))))
    heads = ("protocol", "measure", "value", "± over operations", "95 % interval", "operations")
    yield Table(heads, [_row(row) for row in scores], "Shares in %", frozenset(range(2, 6)))


def _by_operation(scores: Sequence[Row], protocol: str) -> Table:
    rows = [row for row in scores if row["protocol"] == protocol]
    tested = dict.fromkeys(op for row in rows for op in row["per_operation"])
    cells = [[op, *(_shown({**row, "of": row["per_operation"].get(op)}, "of") for row in rows)] for op in tested]
    heads = ("operation", *(row["name"] for row in rows))
    return Table(heads, cells, f"protocol {protocol}, in %", frozenset(range(1, len(heads))))


def _notes(record: RunRecord) -> list[Block]:
    if record.results is None:
        return []
    return [Paragraph(note, note=True) for note in record.results.get("notes", [])]


def _row(row: Row) -> list[str]:
    low, high = _interval(row)
    ends = {**row, "low": low, "high": high}
    interval = f"{_shown(ends, 'low')} to {_shown(ends, 'high')}" if low is not None else ""
    value, spread = _shown(row, "value"), _shown(row, "std_over_operations")
    return [row["protocol"], row["name"], value, spread, interval, str(row["operations"])]


def _interval(row: Row) -> Sequence[float | None]:
    """None where too few operations were tested; results of an earlier version have one all the same."""
    return row["interval_95"] if row["operations"] >= ENOUGH else (None, None)


def _shown(row: Row, key: str) -> str:
    value = row.get(key)
    return "" if value is None else f"{value:.1f} px" if row.get("unit") == "pixels" else f"{100 * value:.1f}"
