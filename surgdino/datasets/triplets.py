"""CholecT50's vocabulary: what a triplet is made of, and whether a release numbers things as the card does.

An id says nothing by itself: the tables in a release (`label_mapping.txt`, `dict/*.txt`, the categories of every JSON)
are compared with the card name for name, because training with other ids would fail silently.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from surgdino.datasets.card import Card
from surgdino.datasets.class_names import class_key
from surgdino.datasets.files import entries, read_text
from surgdino.datasets.manifest import Problem
from surgdino.errors import SurgdinoError, nearest

TASKS = ("triplet", "instrument", "verb", "target")
COLUMNS = ("IVT", "I", "V", "T", "IV", "IT")
_FIX = "use the release's own files: ids mean other things otherwise"


def vocabulary(card: Card) -> dict[str, tuple[str, ...]]:
    """Task -> class names in the order of their ids, `phase` among them."""
    names = (card.triplets, card.instruments, card.verbs, card.targets)
    return {**dict(zip(TASKS, names, strict=True)), "phase": card.phases}


def triplet_table(card: Card) -> np.ndarray:
    """The card's triplets as in `label_mapping.txt`: int64 [triplets, 6] with columns IVT, I, V, T, IV, IT.

    IV = verbs * I + V and IT = targets * I + T.

    Raises:
        SurgdinoError: the card has no triplets, or a triplet of an instrument, verb or target that it does not list.
    """
    if not card.triplets:
        raise SurgdinoError(f"dataset={card.name} has no triplets", expected="a card that lists them")
    rows = []
    for number, name in enumerate(card.triplets):
        ids = []
        for part, names in zip(name.split(","), (card.instruments, card.verbs, card.targets), strict=True):
            if part not in names:
                raise SurgdinoError(f"the triplet {name} names {part!r}", place=card.name, fix=nearest(part, names))
            ids.append(names.index(part))
        instrument, verb, target = ids
        pairs = (len(card.verbs) * instrument + verb, len(card.targets) * instrument + target)
        rows.append((number, *ids, *pairs))
    return np.array(rows, dtype=np.int64)


def check_tables(root: Path, card: Card) -> list[Problem]:
    """Differences between a release's own tables, where it has any, and the card."""
    problems: list[Problem] = []
    names = vocabulary(card)
    for path in (root / "label_mapping.txt", *entries(root / "dict")):
        if not path.is_file() or path.name not in ("label_mapping.txt", "maps.txt", *(f"{name}.txt" for name in names)):
            continue
        try:
            lines = [line.strip() for line in read_text(path).split("\n")]
        except SurgdinoError as error:
            problems.append(Problem.of(error))
            continue
        if path.stem in names:
            rows = (re.fullmatch(r"(\d{1,9})\s*[:\s]\s*(\S.*)", line) for line in lines)  # 3:scissors
            problems += check_names({int(r[1]): r[2] for r in rows if r}, names[path.stem], path, "line of id {}")
        else:
            problems += _check_mapping(path, lines, card)
    return problems


def _check_mapping(path: Path, lines: list[str], card: Card) -> list[Problem]:
    """`label_mapping.txt` (rows of IVT, I, V, T, IV, IT) against the card, to the first difference."""
    expected = {int(row[0]): ",".join(map(str, row)) for row in triplet_table(card)}
    seen = set()
    for number, line in enumerate(lines, start=1):
        cells = [cell.strip() for cell in line.split(",")]
        if not line or line.startswith("#"):
            continue
        place = f"row {number}"
        if len(cells) != len(COLUMNS) or not all(re.fullmatch(r"\d{1,9}", cell) for cell in cells):
            what = "not a row of the triplet mapping"
            return [Problem("error", what, path, place, ", ".join(COLUMNS), repr(line), _FIX)]
        triplet, found = int(cells[0]), ",".join(str(int(cell)) for cell in cells)
        if found != expected.get(triplet) or triplet in seen:
            right = expected.get(triplet, f"triplets 0 to {len(expected) - 1}") if triplet not in seen else "it once"
            return [Problem("error", "another triplet mapping than the card's", path, place, right, found, _FIX)]
        seen.add(triplet)
    if len(seen) < len(expected):
        what = "the triplet mapping is cut short"
        return [Problem("error", what, path, None, f"{len(expected)} triplets", len(seen), "copy it again")]
    return []


def check_names(found: Mapping[int, object], names: tuple[str, ...], path: Path, place: str) -> list[Problem]:
    """Ids and names in a file against the card's, to the first difference.

    Args:
        found: id -> name; an empty one is no fault.
        names: the card's, in the order of their ids; empty where it has none.
        path: the file.
        place: where in it, with `{}` for the id.
    """
    if not found or not names:
        return []
    if 0 not in found and [class_key(str(found.get(n))) for n in range(1, len(names) + 1)] == [*map(class_key, names)]:
        what, place = "the ids count from 1", place.format(1)
        return [Problem("error", what, path, place, f"{names[0]} as 0", f"{names[0]} as 1", _FIX)]
    for number in sorted({*found, *range(len(names))}):
        expected = names[number] if 0 <= number < len(names) else "no such id"
        name = found.get(number, "nothing")
        if class_key(str(name).strip()) != class_key(expected):
            what = "ids are numbered otherwise than on the card"
            return [Problem("error", what, path, place.format(number), expected, name, _FIX)]
    return []
