"""The numbers of a fine-tuned run, protocol by protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from surgdino.metrics.intervals import ENOUGH
from surgdino.report.blocks import Block, Paragraph, Table
from surgdino.report.record import RunRecord
from surgdino.report.sections import Section, run_by_run


class Results(Section):
    """What results.json says; left out for pretraining runs."""

    id, title, order = "results", "Results", 5

    def blocks(self, records: Sequence[RunRecord]) -> list[Block]:
        """The numbers of two runs of one task stand side by side in a section of their own, so not here."""
        tasks = [record.results.get("task") for record in records if record.results]
        same_task = len(tasks) == 2 and tasks[0] == tasks[1]
        return run_by_run(records, _notes) if same_task else super().blocks(records)

    def of_run(self, record: RunRecord) -> list[Block]:
        """A table a protocol, then notes."""
        results = record.results or {}
        scores = [] if results.get("runs") else results.get("scores", [])  # several runs have a section of their own
        heads = ("measure", "value", "± over operations", "95 % interval", "operations")
        tables = [
            Table(heads, [_row(row) for row in rows], f"protocol {protocol}", frozenset({1, 2, 3, 4}))
            for protocol, rows in groupby(scores, key=lambda row: row["protocol"])
        ]
        return [*tables, *_notes(record)]


def _notes(record: RunRecord) -> list[Block]:
    if record.results is None:
        return []
    return [Paragraph(note, note=True) for note in record.results.get("notes", [])]


def _row(row: Mapping[str, Any]) -> list[str]:
    pixels = row.get("unit") == "pixels"

    def shown(value: Any) -> str:
        return "" if value is None else f"{value:.1f} px" if pixels else f"{100 * value:.1f}"

    low, high = row["interval_95"]
    interval = f"{shown(low)} to {shown(high)}" if low is not None and row["operations"] >= ENOUGH else ""
    return [row["name"], shown(row["value"]), shown(row["std_over_operations"]), interval, str(row["operations"])]
