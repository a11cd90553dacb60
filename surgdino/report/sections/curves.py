"""The curves: loss terms, the health of the features, probes against step 0, throughput."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from surgdino.metrics.intervals import ENOUGH
from surgdino.report.blocks import Block, Bullets, Charts, Heading, Paragraph
from surgdino.report.charts import Line, line_chart
from surgdino.report.curves import PANELS, TERMS
from surgdino.report.evidence import (
    NETWORKS,
    PROBE,
    by_operation,
    measure_of,
    measures_in,
    paired,
    phase_bounds,
    probe_rows,
)
from surgdino.report.record import RunRecord
from surgdino.report.sections import Section

_BAND = (
    "Dashed: step 0. Band: 95 % interval of the change since then over operations; where it leaves the dashed line, "
    f"the change is beyond chance. Below {ENOUGH} operations thin lines show the change of each."
)
_HEALTH = ("effective_rank", "gradient_norm", "lr")
_TIMES = {
    "data_wait": "share of time waiting for data",
    "probe_wait": "share of time measuring",
    "save_wait": "share of time saving",
    "validation_wait": "share of time validating",
}
_COST = {"images_per_second": "images a second", **_TIMES}


class Curves(Section):
    """What was logged over the steps, the runs over each other."""

    id, title, order = "curves", "Curves", 20

    def blocks(self, records: Sequence[RunRecord]) -> list[Block]:
        """Charts by group, then the warnings of each run."""
        groups = {
            "Objective": [_chart(records, key, title) for key, title in {**_stages(records), **TERMS}.items()],
            "Probes": [_probe_chart(records, name) for name in _measures(records)],
            "Training": [_chart(records, key, PANELS[key]) for key in _HEALTH],
            "Speed": [_chart(records, key, title) for key, title in _COST.items()],
        }
        blocks: list[Block] = []
        for title, charts in groups.items():
            if drawn := [chart for chart in charts if chart]:
                blocks += [Heading(title), Charts(drawn)]
                blocks += [Paragraph(_BAND, note=True)] if title == "Probes" else []
        for record in records:
            if phases := _phases(record):
                title = f"Phases of {record.name}" if len(records) > 1 else "Phases of the run"
                blocks += [Heading(title), Bullets(phases)]
            if record.warnings:
                title = f"Warnings of {record.name}" if len(records) > 1 else "Warnings of the run"
                blocks += [Heading(title), Bullets([f"step {step}: {text}" for step, text in record.warnings])]
        return blocks


def _chart(records: Sequence[RunRecord], key: str, title: str) -> str | None:
    lines = [line for record in records for line in _by_stage(record, key, several=len(records) > 1)]
    return line_chart(title, lines, percent=key in _TIMES, bounds=_bounds(records)) if lines else None


def _by_stage(record: RunRecord, key: str, *, several: bool) -> list[Line]:
    """A curve a stage of the run: each counts its steps from the start."""
    stages = dict.fromkeys(row.get("stage") for row in record.training_rows)
    lines = []
    for stage in stages:
        rows = [row for row in record.training_rows if row.get("stage") == stage]
        name = ", ".join([record.name] * several + [str(stage)] * (stage is not None)) or record.name
        lines += [line] if (line := _line(name, rows, key)) else []
    return lines


def _probe_chart(records: Sequence[RunRecord], name: str) -> str | None:
    """The shipped network, and the other one beside it where both were measured."""
    lines = []
    for record in records:
        for network in ("", *NETWORKS):
            label = network or record.section("train").get("ship", "shipped")
            label = f"{record.name}, {label}" if len(records) > 1 else label
            key = f"{PROBE}{network}_{name}" if network else PROBE + name
            rows = probe_rows(record.rows)
            lines += (
                [_with_operations(line, rows, name if not network else "")] if (line := _line(label, rows, key)) else []
            )
    if all(len(line.values) < 2 for line in lines):
        return None
    measure = measure_of(name)
    return line_chart(measure.words, lines, start=lines[0].values[0], percent=measure.percent, bounds=_bounds(records))


def _with_operations(line: Line, rows: Sequence[Mapping[str, Any]], name: str) -> Line:
    """The curve with the interval of its change since step 0, or with every operation's change where these are few."""
    measured = [row for row in rows if isinstance(row.get(PROBE + name), int | float)]
    each = [by_operation(row, name) for row in measured]
    found = [paired(each[0], values) for values in each]
    if not found or any(change is None for change in found):
        return line
    first = line.values[0]
    if all(math.isfinite(change.difference.low) for change in found if change):
        ends = [(first + change.difference.low, first + change.difference.high) for change in found if change]
        return replace(line, band=ends)
    common = set.intersection(*(set(change.values) for change in found if change))
    beside = [[first + change.values[op] for change in found if change] for op in sorted(common)]
    return replace(line, beside=beside if len(beside) > 1 else ())


def _line(name: str, rows: Sequence[Mapping[str, Any]], key: str) -> Line | None:
    points = [(row["step"], row[key]) for row in rows if isinstance(row.get(key), int | float)]
    return Line(name, *zip(*points, strict=True)) if points else None


def _bounds(records: Sequence[RunRecord]) -> list[float]:
    return sorted({step for record in records for step in phase_bounds(record.training_rows)})


def _phases(record: RunRecord) -> list[str]:
    """What each phase changed, as the command says it; in the charts dotted lines part them."""
    given = record.config.get("phases")
    entries = [entry for entry in given if isinstance(entry, Mapping)] if isinstance(given, list) else []
    return [", ".join(f"{key}: {value}" for key, value in entry.items()) for entry in entries]


def _measures(records: Sequence[RunRecord]) -> list[str]:
    names = dict.fromkeys(name for record in records for name in measures_in(probe_rows(record.rows)))
    return [name for name in names if name != "operation_chance" and not name.startswith(NETWORKS)]


def _stages(records: Sequence[RunRecord]) -> dict[str, str]:
    """Curves of fine-tuning stages, which have their own names."""
    known = {*TERMS, *_HEALTH, *_COST, "step", "phase", "skipped", "head_lr", "weight_decay", "momentum", "memory_mb"}
    keys = dict.fromkeys(key for record in records for row in record.training_rows for key in row)
    return {key: key.replace("_", " ") for key in keys if key not in known and not key.startswith(PROBE)}
