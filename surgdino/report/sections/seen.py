"""What the checkpoint has seen, and which published test sets it may therefore not be tested on."""

from __future__ import annotations

from surgdino.datasets.card import card_names, load_card
from surgdino.datasets.overlap import part_operations
from surgdino.report.blocks import Block, Code, Paragraph, Table
from surgdino.report.record import RunRecord
from surgdino.report.sections import Section


class Seen(Section):
    """The operations of model.json against every dataset card; left out where no checkpoint was written."""

    id, title, order = "seen", "Operations seen, and what they leak into", 50

    def of_run(self, record: RunRecord) -> list[Block]:
        """Published test sets with the operations they share with the run, then the list of all that it has seen."""
        seen = record.model.get("operations")
        if seen is None:
            return []
        summary = f"the {len(seen)} operations that this checkpoint has seen, initial weights included"
        listed = Code("\n".join(seen), summary=summary)
        rows = _overlaps(frozenset(seen))
        touched = sum(row[2] != "0" for row in rows)
        if not touched:
            return [Paragraph("No published test set that surgdino knows shares an operation with it."), listed]
        text = (
            f"A backbone must not be tested on operations it was trained on. It has seen operations of {touched} of "
            f"{len(rows)} published test sets. surgdino refuses to test on these unless leakage=allow is given, which "
            "stamps the result."
        )
        tones = {(place, 2): "worse" for place, row in enumerate(rows) if row[2] != "0"}
        table = Table(("tested on", "split", "shared", "of"), rows, numeric=frozenset({2, 3}), tones=tones)
        return [Paragraph(text), table, listed]


def _overlaps(seen: frozenset[str]) -> list[list[str]]:
    """Dataset, split, operations shared, operations tested, of every test part that a card lists."""
    rows = []
    for card in map(load_card, card_names()):
        for split, parts in card.splits.items():
            if card.videos and "test" in parts:
                tested = part_operations(card, split, "test")
                rows.append([card.name, split, str(len(tested & seen)), str(len(tested))])
    return rows
