"""Folds and seeds: every run of several, their mean and deviation, and the interval over all operations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from surgdino.metrics.intervals import ENOUGH
from surgdino.report.blocks import Block, Folded, Paragraph, Table
from surgdino.report.record import RunRecord
from surgdino.report.sections import Section

SUMMARY = ("mean over ", "± ", "95 % ")  # how the rows begin that are neither a run nor an operation


class Folds(Section):
    """The runs of one folder side by side; left out for single runs."""

    id, title, order = "folds", "Folds and seeds", 6

    def of_run(self, record: RunRecord) -> list[Block]:
        """A table a protocol."""
        results = record.results or {}
        if not results.get("runs"):
            return []
        text = (
            "Each run was trained and tested on its own; its curves are in the report in its folder. The mean over "
            "runs is of their own test parts. The mean over operations averages each operation's values first."
        )
        headline = results["headline"]["protocol"]
        shown: list[Block] = [Paragraph(text, note=True)]
        others: list[Block] = []
        for protocol in dict.fromkeys(row["protocol"] for row in results["scores"]):
            heads, rows = fold_rows(results, protocol)
            strong = frozenset(place for place, row in enumerate(rows) if row[0].startswith(SUMMARY))
            numeric = frozenset(range(1, len(heads)))
            table = Table(heads, rows, f"protocol {protocol}, shares in %", numeric, strong)
            (shown if protocol == headline else others).append(table)
        return [*shown, *([Folded("every other protocol", others)] if others else [])]


def fold_rows(results: Mapping[str, Any], protocol: str) -> tuple[list[str], list[list[str]]]:
    """(heads, rows) of one protocol: each run, then means, deviations and the interval; a column a measure.

    Shares are in %. Below `ENOUGH` operations there is no interval, and every operation has a row instead.
    """
    scores = [row for row in results["scores"] if row["protocol"] == protocol]
    count = results["operations"]

    def line(name: str, values: list[Any]) -> list[str]:
        return [name, *(_form(value, row.get("unit")) for value, row in zip(values, scores, strict=True))]

    rows = [line(name, [row["per_run"].get(name) for row in scores]) for name in results["runs"]]
    over = " and ".join(key for key in ("folds", "seeds") if len(results[key]) > 1)
    rows.append(line(f"mean over {over or 'runs'}", [row["value"] for row in scores]))
    for key in ("folds", "seeds"):
        if len(results[key]) > 1:
            rows.append(line(f"± {key}", [row.get(f"std_over_{key}") for row in scores]))
    rows.append(line(f"mean over {count} operations", [row["mean_over_operations"] for row in scores]))
    rows.append(line("± operations", [row["std_over_operations"] for row in scores]))
    if count >= ENOUGH:
        ends = ([_form(end, row.get("unit")) for end in row["interval_95"]] for row in scores)
        rows.append(["95 % interval", *(f"{low} to {high}" if low != "-" else "-" for low, high in ends)])
    else:
        operations = dict.fromkeys(operation for row in scores for operation in row["per_operation"])
        rows += [line(each, [row["per_operation"].get(each) for row in scores]) for each in operations]
    heads = ["run", *(f"{row['name']} (pixels)" if row.get("unit") == "pixels" else row["name"] for row in scores)]
    return heads, rows


def _form(value: float | None, unit: str | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if unit == "pixels" else f"{100 * value:.1f}"
