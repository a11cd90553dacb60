"""The numbers of a fine-tuned run, protocol by protocol, and its predictions as pictures where there are any."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from surgdino.report.blocks import Block, Heading, Paragraph, Picture, Pictures, Section, Table, png_picture
from surgdino.report.record import RunRecord

ORDER = 5
_MOST_RIBBONS = 12


def build(records: Sequence[RunRecord]) -> Section | None:
    """None for pretraining runs. Numbers of two runs of one task stand side by side in a section of their own."""
    blocks: list[Block] = []
    tasks = [record.results.get("task") for record in records if record.results is not None]
    beside = len(tasks) == 2 and tasks[0] == tasks[1]
    for record in records:
        if record.results is not None:
            found = [*([] if beside else _tables(record.results)), *_notes(record, record.results)]
            blocks += [Heading(record.name), *found] if found and len(records) > 1 else found
    return Section("results", "Results", blocks) if blocks else None


def _tables(results: Any) -> list[Block]:
    heads = ("measure", "value", "± over operations", "95 % interval", "operations")
    return [
        Table(heads, [_row(row) for row in group], f"protocol {protocol}", frozenset({1, 2, 3, 4}))
        for protocol, group in groupby(results.get("scores", []), key=lambda row: row["protocol"])
    ]


def _notes(record: RunRecord, results: Any) -> list[Block]:
    blocks: list[Block] = [Paragraph(note, note=True) for note in results.get("notes", [])]
    if ribbons := _ribbons(record):
        blocks += [Heading("Predictions"), Pictures(ribbons, 1)]
    return blocks


def _row(row: Any) -> list[str]:
    pixels = row.get("unit") == "pixels"

    def shown(value: Any) -> str:
        return "" if value is None else f"{value:.1f} px" if pixels else f"{100 * value:.1f}"

    low, high = row["interval_95"]
    ends = f"{shown(low)} to {shown(high)}" if low is not None else ""
    return [row["name"], shown(row["value"]), shown(row["std_over_operations"]), ends, str(row["operations"])]


def _ribbons(record: RunRecord) -> list[Picture]:
    """Phase ribbons show no patient; overlays would, and stay out."""
    files = sorted((record.folder / "predictions").glob("*-ribbon.png"))[:_MOST_RIBBONS]
    return [png_picture(file.read_bytes(), file.stem.removesuffix("-ribbon")) for file in files]
