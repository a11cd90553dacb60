"""Before and after adaptation, on operations that were held out."""

from __future__ import annotations

from collections.abc import Sequence

from surgdino.engine.probing.report import Change
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
            "Bold: measured on operations that training never saw. The interval is a bootstrap over these operations; "
            "with few of them it is too narrow. The other measures only describe the features."
        )
        rows = [_row(change) for change in found]
        blocks: list[Block] = [Table(heads, rows, caption, frozenset(range(1, 6)), judged, tones)]
        if intervals := _intervals(found):
            chart = interval_chart("Change in points, with 95 % intervals over operations", intervals)
            blocks.append(Charts([chart], wide=True))
        if chosen := record.model.get("chosen_on"):
            text = "Checkpoints were compared on these operations, so no result may be reported on them: "
            blocks.append(Paragraph(f"{text}{', '.join(chosen)}.", note=True))
        return blocks


def _row(change: Change) -> list[str]:
    count = str(change.difference.n) if change.difference else ""
    values = (change.form(change.before), change.form(change.after), change.signed(change.after - change.before))
    return [change.measure.words, *values, change.interval, count]


def _intervals(found: Sequence[Change]) -> list[tuple[str, float, float, float]]:
    return [
        (change.measure.words, 100 * d.low, 100 * d.value, 100 * d.high)
        for change in found
        if change.measure.percent and change.interval and (d := change.difference)
    ]
