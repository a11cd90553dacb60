"""What the checkpoint has seen, and which published test sets that spoils."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from surgdino.datasets.card import card_names, load_card
from surgdino.datasets.overlap import part_operations
from surgdino.report.blocks import Block, Code, Heading, Paragraph, Section, Table
from surgdino.report.record import RunRecord

ORDER = 50


def build(records: Sequence[RunRecord]) -> Section | None:
    """None where no checkpoint was written."""
    blocks: list[Block] = []
    for record in records:
        seen = record.model.get("operations")
        if seen is not None:
            blocks += [Heading(record.name)] if len(records) > 1 else []
            blocks += _of_run(seen)
    return Section("seen", "Operations seen, and what they leak into", blocks) if blocks else None


def _of_run(seen: Sequence[str]) -> list[Block]:
    rows, tones = _overlaps(frozenset(seen))
    listed = Code(
        "\n".join(seen),
        summary=f"the {len(seen)} operations that this checkpoint has seen, weights it began with included",
    )
    if not rows:
        return [Paragraph("No published test set that surgdino knows of shares an operation with it."), listed]
    spoiled = sum(row[2] != "0" for row in rows)
    text = (
        f"A backbone must not be tested on operations it was trained on. Of {len(rows)} published test sets this one "
        f"touches {spoiled}; surgdino refuses to test on these unless leakage=allow is said, and stamps the result."
    )
    return [
        Paragraph(text),
        Table(("tested on", "split", "shared", "of"), rows, numeric=frozenset({2, 3}), tones=tones),
        listed,
    ]


def _overlaps(seen: Collection[str]) -> tuple[list[list[str]], dict[tuple[int, int], str]]:
    """(rows, tones): every test part that a card lists, whether it's touched or not."""
    rows: list[list[str]] = []
    tones = {}
    for card in map(load_card, card_names()):
        for split, parts in card.splits.items():
            if card.videos and "test" in parts:
                tested = part_operations(card, split, "test")
                shared = len(tested & frozenset(seen))
                tones[len(rows), 2] = "worse" if shared else ""
                rows.append([card.name, split, str(shared), str(len(tested))])
    touched = any(row[2] != "0" for row in rows)
    return (rows, tones) if touched else ([], {})
