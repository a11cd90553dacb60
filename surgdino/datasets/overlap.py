"""Which operations two datasets share, from their cards alone: what a backbone has seen of what it is tested on.

`python -m surgdino.datasets.overlap > docs/overlaps.md` writes the table that the documentation shows.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from surgdino.datasets.card import PARTS, Card, card_names, compact, expand, load_card
from surgdino.datasets.manifest import place_of
from surgdino.errors import SurgdinoError, nearest

TITLES = {"test": "Test", "val": "Validation", "all": "Everything"}
UNKNOWN = "?"
_PLAIN = re.compile(r"[A-Za-z_][\w./:-]*", re.ASCII)  # needs no quotes in a list of settings
_HEAD = """\
# What pretraining has seen of what is tested

Made by `python -m surgdino.datasets.overlap` from the cards in `datasets/`; `surgdino list overlaps` prints it too.

How many operations two datasets share; `?` where nobody knows, which is neither 0 nor any other number:

"""
_DETAILS = """\
- m2cai16 has numbers of its own. Which of its operations other sets show has not been published.
- Sets without a card (their operations are `?`) stand here with the operations that they are known to share.
- An own folder has no public ids: what it shares with anything is told by the content of its frames.

Figures on operations that a backbone has seen, even without their labels, are not figures on unseen patients.
`exclude=test-of:cholect50/rdv` (in full `data.exclude=[test-of:cholect50/rdv]`) leaves a test set out of pretraining.

## The same by splits

A row is a set that a backbone may have been trained on, a column a part of a split that it may be tested on, a cell how
many of the column's operations are in the row. Rows of zeros are left out: they share nothing with the columns.
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
        unknown: datasets of which nobody knows what they share.
    """

    dataset: str
    part: str
    tested: tuple[OperationSet, ...]
    seen: tuple[OperationSet, ...]
    unknown: tuple[str, ...] = ()

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


def exclude_word(tested_on: str, operations: Sequence[str], tested: int) -> str:
    """What to type so that a pretraining leaves operations out: `data.exclude=[test-of:cholect50/rdv]`, or their names.

    Args:
        tested_on: dataset, split and part, as in `cholect50 rdv test`.
        operations: to leave out.
        tested: how many the part has.
    """
    dataset, _, rest = tested_on.partition(" ")
    split, _, part = rest.rpartition(" ")
    card = load_card(dataset) if dataset in card_names() else None
    names = list(operations)
    if card is not None and card.videos and split in card.splits and part == "test" and len(names) == tested:
        names = [f"test-of:{dataset}/{split}"]
    elif card is None or not card.videos:
        places = [place_of(name) for name in names]
        names = [place if places.count(place) == 1 else name for place, name in zip(places, names, strict=True)]
    quoted = [name if _PLAIN.fullmatch(name) else "'" + name.replace("'", r"\'") + "'" for name in names]
    word = f"data.exclude=[{','.join(quoted)}]"
    return shlex.quote(word) if re.search(r'["$`!\\]', word) or quoted == names else f'"{word}"'


def unknown_between(dataset: str, other: str, cards: Iterable[Card] | None = None) -> bool:
    """Whether nobody knows if two datasets, by their cards' names, show the same operations.

    Args:
        cards: to look in, instead of in `datasets/`.
    """
    if cards is None:
        cards = map(load_card, {dataset, other} & {*card_names()})
    known = {card.name: card.overlap_unknown for card in cards}
    return other in known.get(dataset, ()) or dataset in known.get(other, ())


@cache
def _public() -> dict[str, tuple[str, ...]]:
    """What stands before the slash of public ids -> the datasets whose operations have them."""
    found: dict[str, tuple[str, ...]] = {}
    for card in map(load_card, card_names()):
        for prefix in {operation.partition("/")[0] for operation in part_operations(card)}:
            found[prefix] = (*found.get(prefix, ()), card.name)
    return found


def has_public_id(operation: str) -> bool:
    """Whether an operation has a name that all datasets with it call it by."""
    return operation.partition("/")[0] in _public()


def told_by_names(operation: str, other: str) -> bool:
    """Whether the names of two operations tell if they are one: public ids of datasets whose overlap is known."""
    one, two = (_public().get(name.partition("/")[0], ()) for name in (operation, other))
    return bool(one and two) and (one == two or not any(unknown_between(a, b) for a in one for b in two))


@dataclass(frozen=True)
class PublishedTest:
    """A published test set: how many of its operations a training has seen; None where nobody knows."""

    dataset: str
    split: str
    tested: int
    shared: int | None


def published_tests(seen: frozenset[str]) -> list[PublishedTest]:
    """Every test part that a card lists, with what is in `seen`, the operations of a training."""
    cards, tests = [load_card(name) for name in card_names()], []
    prefixes, public = {operation.partition("/")[0] for operation in seen}, _public()
    trained = {dataset for prefix in prefixes for dataset in public.get(prefix, ())}
    for card in cards:
        for split, parts in card.splits.items():
            if card.videos and "test" in parts:
                tested = part_operations(card, split, "test")
                unknown = any(unknown_between(card.name, other, cards) for other in trained)
                shared = len(tested & seen) or (None if unknown else 0)
                tests.append(PublishedTest(card.name, split, len(tested), shared))
    return tests


def _whole(cards: Iterable[Card]) -> dict[str, frozenset[str]]:
    """Dataset -> its operations; of one without a card, those that other cards say it shares."""
    whole = {card.name: part_operations(card) for card in cards}
    for card in cards:
        for other, entries in card.overlaps.items():
            if other not in {each.name for each in cards}:
                whole[other] = whole.get(other, frozenset()) | frozenset(map(card.operation_of, entries))
    return whole


def matrix(cards: Iterable[Card]) -> tuple[list[str], list[list[str]]]:
    """The columns' headings and the rows: how many operations each two datasets share, `?` where nobody knows."""
    known = [card for card in cards if card.videos]
    whole, by_name = _whole(known), {card.name: card for card in known}
    rows = []
    for name, operations in whole.items():
        counts = [
            "-" if other == name else UNKNOWN if unknown_between(name, other, known) else str(len(operations & theirs))
            for other, theirs in whole.items()
        ]
        rows.append([name, str(len(operations)) if name in by_name else UNKNOWN, *counts])
    return ["operations", *whole], rows


def overlap_tables(cards: Iterable[Card]) -> list[OverlapTable]:
    """Every overlap between the sets that can be trained on and the parts that can be tested on.

    Datasets that have no card stand in them as `known`, with what other cards say that they share.
    """
    known = [card for card in cards if card.videos]
    by_name = {card.name: card for card in known}
    whole = _whole(known)
    seen = []
    for name, operations in whole.items():
        own = by_name.get(name)
        trained = [(f"{split} train", part_operations(own, split, "train")) for split in own.splits] if own else []
        seen += [
            OperationSet(tuple(f"{name} {label}" for label in group.names), group.operations)
            for group in _merged([("all" if own else "known", operations), *trained])
        ]
    tables = []
    for name, operations in whole.items():
        own = by_name.get(name)
        columns = _parts(own) if own and own.splits else [("all", "all" if own else "known", operations)]
        unknown = tuple(other for other in whole if unknown_between(name, other, known))
        for part in TITLES:
            tested = _merged([(label, ops) for kind, label, ops in columns if kind == part])
            if tested:
                rows = tuple(r for r in seen if any(r.operations & column.operations for column in tested))
                tables.append(OverlapTable(name, part, tuple(tested), rows, unknown))
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
    rows += [[f"{dataset}: all", *[UNKNOWN] * len(heads)] for dataset in table.unknown]
    return heads, rows


def markdown(cards: Sequence[Card]) -> str:
    """The page of the documentation."""
    pieces = [_HEAD + _table("", *matrix(cards)), _DETAILS]
    before = None
    for table in overlap_tables(cards):
        if table.dataset != before:
            pieces.append(f"### Tested on {table.dataset}\n")
            before = table.dataset
        heads, rows = cells(table)
        pieces.append(_table(TITLES[table.part], heads, rows))
    return "\n".join([*pieces, _which(cards)])


def _table(corner: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [" | ".join(["", corner, *heads, ""]).strip(), "|---" * (len(heads) + 1) + "|"]
    return "\n".join([*lines, *(" | ".join(["", *row, ""]).strip() for row in rows)]) + "\n"


def _which(cards: Sequence[Card]) -> str:
    """Which operations they are, by number, for each pair of datasets."""
    known = [card for card in cards if card.videos]
    lines = ["## Which operations\n"]
    for place, card in enumerate(known):
        for other in known[place + 1 :]:
            shared = part_operations(card) & part_operations(other)
            if shared:
                places = sorted((operation.rpartition("/")[2] for operation in shared), key=lambda p: (len(p), p))
                numbers = compact(expand(places))
                lines.append(f"- {card.name} and {other.name}, {len(shared)} operations: {numbers}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(markdown([load_card(name) for name in card_names()]), end="")
