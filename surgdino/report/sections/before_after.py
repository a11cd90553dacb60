"""Before and after adaptation, on operations that were held out."""

from __future__ import annotations

from collections.abc import Sequence

from surgdino.metrics.intervals import ENOUGH
from surgdino.report.blocks import Block, Folded, Paragraph, Table
from surgdino.report.evidence import Judged, since_start
from surgdino.report.forest import forest_of
from surgdino.report.record import RunRecord
from surgdino.report.sections import Section


class BeforeAfter(Section):
    """What the probes measured first and last; left out for runs that measured nothing twice."""

    id, title, order = "before-after", "Before and after", 10

    def of_run(self, record: RunRecord) -> list[Block]:
        """The changes as a forest, every number behind it, and what no result may be reported on."""
        if not (found := since_start(record.rows)):
            return []
        blocks: list[Block] = [*changes_shown(found, "Change from step 0", ("before", "after"))]
        measured = {operation for judged in found for operation in judged.change.by_operation}
        if trained := sorted(measured & set(record.model.get("operations") or ())):
            text = f"Training saw {len(trained)} of the {len(measured)} operations measured here"
            blocks.append(Paragraph(f"{text} ({', '.join(trained)}): on others the change may be smaller.", note=True))
        if chosen := record.model.get("chosen_on"):
            text = "Checkpoints were compared on these operations, so no result may be reported on them: "
            blocks.append(Paragraph(f"{text}{', '.join(chosen)}.", note=True))
        return blocks


def changes_shown(found: Sequence[Judged], title: str, ends: tuple[str, str]) -> list[Block]:
    """Changes of the first group as a forest; folded below it the other groups', and all numbers.

    Args:
        ends: what the values before and after are called.
    """
    groups = {group: [j for j in found if j.group == group] for group in dict.fromkeys(j.group for j in found)}
    tables = [_table(each, group, ends) for group, each in groups.items()]
    first = forest_of(next(iter(groups.values())), title)
    if first is None:
        return [*tables]
    others = forest_of([j for each in list(groups.values())[1:] for j in each], title)
    return [first, *([Folded("every other protocol", [others])] if others else []), Folded("all numbers", tables)]


def _table(found: Sequence[Judged], group: str, ends: tuple[str, str]) -> Table:
    heads = ("measure", *ends, "change", "95 % interval", "operations")
    tones = {(place, 3): judged.tone for place, judged in enumerate(found) if judged.tone}
    merits = frozenset(place for place, judged in enumerate(found) if judged.better is not None)
    caption = (
        f"{group}{'. ' if group else ''}Changes of shares are in points. Below {ENOUGH} operations every change stands "
        "in place of an interval. Measures that are not bold only describe the features."
    )
    return Table(heads, [_row(judged) for judged in found], caption, frozenset(range(1, 6)), merits, tones)


def _row(judged: Judged) -> list[str]:
    change = judged.change
    few = "" if change.interval else ", ".join(map(change.signed, change.by_operation.values()))
    value = change.difference.value if change.difference else change.after - change.before
    count = str(change.difference.n) if change.difference else ""
    ends = change.form(change.before), change.form(change.after)
    return [change.measure.words, *ends, change.signed(value), change.interval or few, count]
