"""The curves: loss terms, the health of the features, probes against step 0, throughput."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from surgdino.report.blocks import Block, Bullets, Charts, Heading, Section
from surgdino.report.charts import Level, Line, line_chart
from surgdino.report.curves import PANELS, TERMS
from surgdino.report.evidence import NETWORKS, PROBE, described, measures_in, probe_rows
from surgdino.report.record import RunRecord

ORDER = 20
_HEALTH = ("effective_rank", "gradient_norm", "lr")
_COST = {"images_per_second": ("images a second", False), "data_wait": ("share of time waiting for data", True)}


def build(records: Sequence[RunRecord]) -> Section | None:
    """None where nothing was logged."""
    groups = {
        "Objective": [_chart(records, key, title) for key, title in {**_others(records), **TERMS}.items()],
        "Probes, the dashed line is step 0": [_probe_chart(records, name) for name in _measures(records)],
        "Training": [_chart(records, key, PANELS[key]) for key in _HEALTH],
        "Speed": [_chart(records, key, title, percent=percent) for key, (title, percent) in _COST.items()],
    }
    blocks: list[Block] = []
    for title, charts in groups.items():
        drawn = [chart for chart in charts if chart]
        if drawn:
            blocks += [Heading(title), Charts(drawn)]
    for record in records:
        if record.warnings:
            name = f"{record.name} said" if len(records) > 1 else "What the run said"
            blocks += [Heading(name), Bullets([f"step {step}: {sentence}" for step, sentence in record.warnings])]
    return Section("curves", "Curves", blocks) if blocks else None


def _chart(records: Sequence[RunRecord], key: str, title: str, *, percent: bool = False) -> str | None:
    lines = [line for record in records if (line := _line(record.name, record.windows, key))]
    return line_chart(title, lines, percent=percent) if lines else None


def _probe_chart(records: Sequence[RunRecord], name: str) -> str | None:
    """What is shipped, and the other network beside it where both were measured."""
    title, percent, _ = described(name)
    lines = [
        line
        for record in records
        for network in ("", *NETWORKS)
        if (line := _line(_label(record, network, len(records)), probe_rows(record.rows), _key(name, network)))
    ]
    if not lines or all(len(line.values) < 2 for line in lines):
        return None
    return line_chart(title, lines, [Level("step 0", lines[0].values[0])], percent=percent)


def _key(name: str, network: str) -> str:
    return f"{PROBE}{network}_{name}" if network else PROBE + name


def _label(record: RunRecord, network: str, runs: int) -> str:
    shipped = record.config.get("train", {}).get("ship", "shipped")
    return f"{record.name}, {network or shipped}" if runs > 1 else network or shipped


def _line(name: str, rows: Sequence[Mapping[str, Any]], key: str) -> Line | None:
    points = [(row["step"], row[key]) for row in rows if isinstance(row.get(key), int | float)]
    return Line(name, *zip(*points, strict=True)) if points else None


def _measures(records: Sequence[RunRecord]) -> list[str]:
    names = [name for record in records for name in measures_in(probe_rows(record.rows))]
    of_other = tuple(f"{network}_" for network in NETWORKS)
    return [name for name in dict.fromkeys(names) if name != "operation_chance" and not name.startswith(of_other)]


def _others(records: Sequence[RunRecord]) -> dict[str, str]:
    """Curves of fine-tuning stages, which bring their own names."""
    known = {*TERMS, *_HEALTH, *_COST, "step", "skipped", "head_lr", "weight_decay", "momentum", "memory_mb"}
    keys = [key for record in records for row in record.windows for key in row if key not in known]
    return {key: key.replace("_", " ") for key in dict.fromkeys(keys) if not key.startswith(PROBE)}
