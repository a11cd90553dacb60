"""Before and after adaptation, on operations that were held out."""

from __future__ import annotations

from collections.abc import Sequence

from surgdino.engine.probing.report import Change
from surgdino.metrics.intervals import ENOUGH
from surgdino.report.blocks import Block, Charts, Paragraph, Table
from surgdino.report.charts import interval_chart
from surgdino.report.evidence import changes, is_merit, tone_of
from surgdino.report.record import RunRecord
from surgdino.report.sections import Section


class BeforeAfter(Section):
    """What the probes measured first and last; left out for runs that measured nothing twice."""

    id, title, order = "before-after", "Before and after", 10

    def of_run(self, record: RunRecord) -> list[Block]:
        """A table, a chart of the intervals, and what no result may be reported on."""
        if not (found := changes(record.rows)):
            return []
        heads = ("measure", "before", "after", "change", "95 % interval", "operations")
        tones = {(i, 3): tone for i, c in enumerate(found) if (tone := tone_of(c.difference, is_merit(c.measure)))}
        judged = frozenset(i for i, change in enumerate(found) if change.difference is not None)
        caption = (
            f"Bold: measured on operations with labels. The 95 % interval counts these operations; below {ENOUGH} of "
            "them there is none, and every change is shown. The other measures only describe the features."
        )
        rows = [_row(change) for change in found]
        blocks: list[Block] = [Table(heads, rows, caption, frozenset(range(1, 6)), judged, tones)]
        if intervals := _intervals(found):
            chart = interval_chart("Change in points, with 95 % intervals over operations", intervals)
            blocks.append(Charts([chart], wide=True))
        measured = {operation for change in found for operation in change.by_operation}
        if trained := sorted(measured & set(record.model.get("operations") or ())):
            text = f"Training saw {len(trained)} of the {len(measured)} operations measured here"
            blocks.append(Paragraph(f"{text} ({', '.join(trained)}): on others the change may be smaller.", note=True))
        if chosen := record.model.get("chosen_on"):
            text = "Checkpoints were compared on these operations, so no result may be reported on them: "
            blocks.append(Paragraph(f"{text}{', '.join(chosen)}.", note=True))
        return blocks


def _row(change: Change) -> list[str]:
    count = str(change.difference.n) if change.difference else ""
    values = (change.form(change.before), change.form(change.after), change.signed(change.after - change.before))
    few = "" if change.interval else ", ".join(map(change.signed, change.by_operation.values()))
    return [change.measure.words, *values, change.interval or few, count]


def _intervals(found: Sequence[Change]) -> list[tuple[str, float, float, float]]:
    return [
        (change.measure.words, 100 * d.low, 100 * d.value, 100 * d.high)
        for change in found
        if change.measure.percent and change.interval and (d := change.difference)
    ]
