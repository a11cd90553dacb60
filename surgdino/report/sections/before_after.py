"""Before and after adaptation, on operations that were held out."""

from __future__ import annotations

import math
from collections.abc import Sequence

from surgdino.report.blocks import Block, Charts, Paragraph, Section, Table
from surgdino.report.charts import interval_chart
from surgdino.report.evidence import Change, changes, tone_of
from surgdino.report.record import RunRecord

ORDER = 10
_NUMERIC = frozenset({1, 2, 3, 4, 5})


def build(records: Sequence[RunRecord]) -> Section | None:
    """The table of each run; None for runs that measured nothing twice."""
    blocks: list[Block] = []
    for record in records:
        found = changes(record.rows)
        if found:
            blocks += _of_run(record, found, named=len(records) > 1)
    return Section("before-after", "Before and after", blocks) if blocks else None


def _of_run(record: RunRecord, found: Sequence[Change], named: bool) -> list[Block]:
    heads = ("measure" if not named else record.name, "before", "after", "change", "95 % interval", "operations")
    tones = {(i, 3): tone for i, change in enumerate(found) if (tone := tone_of(change.difference, change.better))}
    judged = frozenset(i for i, change in enumerate(found) if change.difference is not None)
    caption = (
        "Bold: measured on operations that training never saw; the interval is a bootstrap over these operations "
        "(with few of them it is too narrow). The rest describes the features and is no merit by itself."
    )
    blocks: list[Block] = [Table(heads, [_row(c) for c in found], caption, _NUMERIC, judged, tones)]
    rows = [
        (change.title, 100 * d.low, 100 * d.value, 100 * d.high)
        for change in found
        if change.percent and change.difference and not math.isnan((d := change.difference.difference).low)
    ]
    if rows:
        blocks.append(Charts([interval_chart("Change in points, with 95 % intervals over operations", rows)]))
    if chosen := record.model.get("chosen_on"):
        text = "Operations on which checkpoints were compared, and which no result may be reported on: "
        blocks.append(Paragraph(f"{text}{', '.join(chosen)}.", note=True))
    return blocks


def _row(change: Change) -> list[str]:
    if change.difference is None:
        return [change.title, _number(change, change.before), _number(change, change.after), _signed(change), "", ""]
    interval = change.difference.difference
    factor = 100 if change.percent else 1
    ends = "" if math.isnan(interval.low) else f"{factor * interval.low:+.1f} to {factor * interval.high:+.1f}"
    cells = (_number(change, change.before), _number(change, change.after), _signed(change), ends, str(interval.n))
    return [change.title, *cells]


def _number(change: Change, value: float) -> str:
    return f"{100 * value:.1f} %" if change.percent else f"{value:.3g}"


def _signed(change: Change) -> str:
    difference = change.after - change.before
    return f"{100 * difference:+.1f}" if change.percent else f"{difference:+.3g}"
