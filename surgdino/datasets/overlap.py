"""Which operations two datasets share, from their cards alone: what a backbone has seen of what it is tested on.

`python -m surgdino.datasets.overlap > docs/overlaps.md` writes the table that the documentation shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from surgdino.datasets.card import PARTS, Card, card_names, compact, load_card
from surgdino.errors import SurgdinoError, nearest

TITLES = {"test": "Test", "val": "Validation", "all": "Everything"}
_HEAD = """\
# What pretraining has seen of what is tested

Made by `python -m surgdino.datasets.overlap` from the cards in `datasets/`; `surgdino list overlaps` prints it too. A
row is a set that a backbone may have been trained on, a column a part of a split that it may be tested on, a cell how
many of the column's operations are in the row. Rows of zeros are left out: they share nothing with the columns.

Figures on operations that a backbone has seen, even without their labels, are not figures on unseen patients.
`exclude=test-of:cholect50/rdv` (in full `data.exclude=[test-of:cholect50/rdv]`) leaves a test set out of pretraining.

The training videos of m2cai16 are taken to bear the numbers of the other CAMMA sets. Which operations its test videos
are is not published; they count as operations of their own, which they may not be.
"""


@dataclass(frozen=True)
class OperationSet:
    """Some operations under the names that they go by, such as `fold1 train`."""

    names: tuple[str, ...]
    operations: frozenset[str]


@dataclass(frozen=True)
class OverlapTable:
    """What one dataset's parts of one kind share with everything that can be trained on.

    Attributes:
        dataset: the one that is tested on.
        part: `test`, `val`, or `all` for a dataset without splits.
        tested: the columns.
        seen: the rows that share anything, named with their dataset.
    """

    dataset: str
    part: str
    tested: tuple[OperationSet, ...]
    seen: tuple[OperationSet, ...]

    def shared(self, row: OperationSet, column: OperationSet) -> frozenset[str]:
        """The operations of `column` that `row` holds."""
        return row.operations & column.operations


def part_operations(card: Card, split: str | None = None, part: str | None = None) -> frozenset[str]:
    """The operations of a dataset as its card lists them, or of a split, or of one part of it.

    Raises:
        SurgdinoError: no such split, or none that lists its videos.
    """
    if split is None:
        return frozenset(map(card.operation_of, card.videos))
    if split not in card.splits or not card.videos:
        known = list(card.splits) if card.videos else []
        raise SurgdinoError(f"dataset={card.name} has no split {split!r}", fix=nearest(split, known))
    entries = card.splits[split]
    if part is not None and part not in entries:
        raise SurgdinoError(f"split {split} of {card.name} has no part {part!r}", fix=nearest(part, entries))
    return frozenset(card.operation_of(e) for p in entries if part in (None, p) for e in entries[p])


def operations_named(reference: str, part: str = "test") -> frozenset[str]:
    """The operations of `cholect50/rdv` (its test part, or another), or of all of `cholect50`.

    Raises:
        SurgdinoError: no such dataset or split; the nearest is named.
    """
    dataset, slash, split = reference.partition("/")
    card = load_card(dataset)
    if not card.videos:
        what, expected = f"the operations of dataset={dataset} are not known", "a dataset whose card lists its videos"
        raise SurgdinoError(what, expected=expected)
    return part_operations(card, split, part) if slash else part_operations(card)


def overlap_tables(cards: Iterable[Card]) -> list[OverlapTable]:
    """Every overlap between the sets that can be trained on and the parts that can be tested on.

    Datasets that have no card, but that another's card says it shares operations with, stand in them as a whole.
    """
    known = [card for card in cards if card.videos]
    by_name = {card.name: card for card in known}
    whole = {card.name: part_operations(card) for card in known}
    for card in known:
        for other, entries in card.overlaps.items():
            if other not in whole:
                whole[other] = frozenset(map(card.operation_of, entries))
    seen = []
    for name, operations in whole.items():
        own = by_name.get(name)
        trained = [(f"{split} train", part_operations(own, split, "train")) for split in own.splits] if own else []
        seen += [
            OperationSet(tuple(f"{name} {label}" for label in group.names), group.operations)
            for group in _merged([("all", operations), *trained])
        ]
    tables = []
    for name, operations in whole.items():
        own = by_name.get(name)
        columns = _parts(own) if own and own.splits else [("all", "all", operations)]
        for part in TITLES:
            tested = _merged([(label, ops) for kind, label, ops in columns if kind == part])
            if tested:
                rows = tuple(r for r in seen if any(r.operations & column.operations for column in tested))
                tables.append(OverlapTable(name, part, tuple(tested), rows))
    return tables


def _parts(card: Card) -> list[tuple[str, str, frozenset[str]]]:
    """(part, split, operations) of every part that is tested on."""
    return [
        (part, split, part_operations(card, split, part))
        for split, parts in card.splits.items()
        for part in PARTS
        if part in parts and part != "train"
    ]


def _merged(named: Sequence[tuple[str, frozenset[str]]]) -> list[OperationSet]:
    """Sets of the same operations under all their names, in the order of the first."""
    names: dict[frozenset[str], list[str]] = {}
    for name, operations in named:
        names.setdefault(operations, []).append(name)
    return [OperationSet(tuple(known), operations) for operations, known in names.items()]


def cells(table: OverlapTable) -> tuple[list[str], list[list[str]]]:
    """The columns' headings, and the rows: `cholec80: 40-40 train, 40-8-32 train`, then `4 of 10` or `0`."""
    heads = [", ".join(column.names) for column in table.tested]
    rows = []
    for row in table.seen:
        shared = [len(table.shared(row, column)) for column in table.tested]
        totals = [len(column.operations) for column in table.tested]
        counts = [f"{count} of {total}" if count else "0" for count, total in zip(shared, totals, strict=True)]
        dataset = row.names[0].partition(" ")[0]
        names = ", ".join(name.removeprefix(f"{dataset} ") for name in row.names)
        rows.append([f"{dataset}: {names}", *counts])
    return heads, rows


def markdown(cards: Sequence[Card]) -> str:
    """The page of the documentation."""
    pieces = [_HEAD]
    before = None
    for table in overlap_tables(cards):
        if table.dataset != before:
            pieces.append(f"## Tested on {table.dataset}\n")
            before = table.dataset
        heads, rows = cells(table)
        lines = [" | ".join(["", TITLES[table.part], *heads, ""]).strip(), "|---" * (len(heads) + 1) + "|"]
        lines += [" | ".join(["", *row, ""]).strip() for row in rows]
        pieces.append("\n".join(lines) + "\n")
    return "\n".join([*pieces, _which(cards)])


def _which(cards: Sequence[Card]) -> str:
    """Which operations they are, by number, for each pair of datasets."""
    known = [card for card in cards if card.videos]
    lines = ["## Which operations\n"]
    for place, card in enumerate(known):
        for other in known[place + 1 :]:
            shared = part_operations(card) & part_operations(other)
            if shared:
                numbers = compact(sorted(int(operation.rpartition("/")[2]) for operation in shared))
                lines.append(f"- {card.name} and {other.name}, {len(shared)} operations: {numbers}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(markdown([load_card(name) for name in card_names()]), end="")
