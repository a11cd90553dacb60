"""A task's numbers by class: a bar for each, and which class is taken for which."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from surgdino.errors import first_of
from surgdino.report.blocks import Block, Heading, Table
from surgdino.report.colours import readable_name
from surgdino.report.forest import Forest, Row
from surgdino.report.record import RunRecord
from surgdino.report.sections import Section

_LONG = 30  # classes in a chart
_MATRIX = 24  # classes whose table can be read


class Classes(Section):
    """What results.json says of classes; left out where it says nothing."""

    id, title, order = "classes", "Classes", 6

    def of_run(self, record: RunRecord) -> list[Block]:
        """Bars of the headline's protocol, then every confusion."""
        results = record.results or {}
        tables = results.get("classes") or ()
        shown = results.get("headline", {}).get("protocol")
        tables = [table for table in tables if table["protocol"] == shown] or tables[:1]
        blocks = [block for table in tables for block in _bars(table)]
        for table in results.get("confusions") or ():
            blocks += _confusion(table)
        return blocks


def _bars(table: Mapping[str, Any]) -> list[Block]:
    """F1 of each class, or the task's first measure; of very many classes, those with the most frames."""
    rows = {name: row for name, row in table["rows"].items() if row}
    measures = list(next(iter(rows.values()), ()))
    if not measures:
        return []
    measure = "f1" if "f1" in measures else measures[0]
    absent = [name for name, row in rows.items() if row[measure] is None and row.get("frames") == 0]
    rows = {name: row for name, row in rows.items() if name not in absent}
    kept = sorted(rows, key=lambda name: -(rows[name].get("frames") or 0))[:_LONG]
    share = all(row[measure] is None or row[measure] <= 1 for row in rows.values())
    bars = [_bar(name, row[measure], _note(row), share) for name, row in rows.items() if name in kept]
    more = f", the {len(kept)} most frequent of {len(rows)}" if len(kept) < len(rows) else ""
    unit = " in %" if share else ""
    title = f"{measure.replace('_', ' ')} by {table['title']}{unit}{more} (protocol {table['protocol']})"
    note = f"In no frame: {first_of(absent, 8)}" if absent else ""
    ends = (0, 100) if share else ()
    return [Forest(title, [("", bars)], ends=ends, zero=0, bars=True, note=note)] if bars else []


def _bar(name: str, value: float | None, note: str, share: bool) -> Row:
    number = "not defined" if value is None else f"{100 * value:.1f}" if share else f"{value:.1f}"
    scaled = None if value is None else 100 * value if share else value
    return Row(readable_name(name), " · ".join(part for part in (number, note) if part), scaled)


def _note(row: Mapping[str, Any]) -> str:
    """How often a class was there, beside its bar."""
    key = next((key for key in ("frames", "images", "pixels", "objects") if row.get(key) is not None), None)
    return "" if key is None else f"{row[key]:,.0f} {key}"


def _confusion(table: Mapping[str, Any]) -> list[Block]:
    """A row a true class, in shares of its frames or pixels; of many classes the pairs taken for each other most."""
    counts = np.array(table["counts"], np.int64).reshape(len(table["rows"]), len(table["columns"]))
    if not counts.any():
        return []
    rows, columns = np.flatnonzero(counts.any(1)), np.arange(counts.shape[1])
    if list(table["rows"]) == list(table["columns"]):
        columns = rows = np.flatnonzero(counts.any(1) | counts.any(0))
    is_named, predicted = [table["rows"][k] for k in rows], [table["columns"][k] for k in columns]
    counts = counts[np.ix_(rows, columns)]
    if max(counts.shape) > _MATRIX:
        return [_most_confused(table, is_named, predicted, counts)]
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    text = f"Each row is what is there, in % of its {table['unit']}; each column what was predicted."
    cells: list[list[str]] = []
    shades: dict[tuple[int, int], float] = {}
    for place, (name, row) in enumerate(zip(is_named, shares.tolist(), strict=True)):
        cells.append(
            [f"{readable_name(name)} ({counts[place].sum():,})", *(f"{100 * v:.0f}" if v else "" for v in row)]
        )
        shades |= {(place, column + 1): value for column, value in enumerate(row)}
    heads = ("", *map(readable_name, predicted))
    title = Heading(f"Confusion by {table['title']}")
    return [title, Table(heads, cells, text, frozenset(range(1, len(heads))), shades=shades)]


def _most_confused(table: Mapping[str, Any], rows: list[str], columns: list[str], counts: np.ndarray) -> Table:
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    wrong = np.where(np.array(rows)[:, None] == np.array(columns), 0, counts)
    top = [divmod(place, wrong.shape[1]) for place in np.argsort(-wrong, axis=None, kind="stable")[:_LONG].tolist()]
    cells = [(rows[r], columns[c], f"{counts[r, c]:,}", f"{100 * shares[r, c]:.1f}") for r, c in top if wrong[r, c]]
    heads = ("is", "predicted", table["unit"], "% of what is there")
    return Table(heads, cells, f"Taken for each other most, by {table['title']}", frozenset({2, 3}))
