"""Presence labels of pictures, as DSAD's `weak_labels.csv`: a row a picture, a column a class, 1 or 0.

A class that is labelled absent has a valid empty mask. How the release names its columns and pictures is not confirmed,
so a column is a class in any spelling, and a picture is found by its name or number; what fits neither is not used.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path

from surgdino.datasets.class_names import class_finder
from surgdino.datasets.files import MOST_DIGITS, read_cells
from surgdino.errors import SurgdinoError

_ABSENT, _PRESENT = ("0", "0.0", "false", "no", "absent"), ("1", "1.0", "true", "yes", "present")
_PICTURE = re.compile(r"(?:.*[\\/])?([a-z_ -]*)(\d+)(?:\.[a-z]+)?", re.IGNORECASE)


def read_absent(path: Path, classes: Sequence[str], pictures: Collection[int]) -> dict[int, set[str]]:
    """Picture's number -> the classes that are labelled absent from it.

    Args:
        classes: those of interest; other columns are passed over.
        pictures: numbers of the pictures that the table is about.

    Raises:
        SurgdinoError: no table, no column of a class, none that names the pictures, a picture twice, or a cell that
            says neither present nor absent.
    """
    lines = read_cells(path)
    header, rows = (lines[0], lines[1:]) if lines else ([], [])
    find = class_finder(classes)
    columns = {place: classes[found] for place, name in enumerate(header) if (found := find(name)) is not None}
    if not columns:
        expected, given = f"columns such as {', '.join(classes[:2])}", ", ".join(header)[:80]
        raise SurgdinoError("no column of an organ", file=path, place="row 1", expected=expected, found=given)
    numbers = _numbers(path, header, rows, set(columns), pictures)
    absent: dict[int, set[str]] = {}
    for place, (number, row) in enumerate(zip(numbers, rows, strict=True), start=2):
        cells = {name: row[column].lower() if column < len(row) else "" for column, name in columns.items()}
        if odd := [cell for cell in cells.values() if cell not in (*_ABSENT, *_PRESENT)]:
            raise SurgdinoError("neither 0 nor 1", file=path, place=f"row {place}", expected="0 or 1", found=odd[0])
        absent[number] = {name for name, cell in cells.items() if cell in _ABSENT}
    return absent


def _numbers(
    path: Path, header: Sequence[str], rows: Sequence[Sequence[str]], others: set[int], pictures: Collection[int]
) -> list[int]:
    """The number of each row's picture: from names such as `image07.png`, or from numbers that are the pictures'."""
    for named in (True, False):
        for column in sorted(set(range(len(header))) - others):
            cells = [_PICTURE.fullmatch(row[column]) if column < len(row) else None for row in rows]
            found = [cell for cell in cells if cell and len(cell[2]) <= MOST_DIGITS and (cell[1] or not named)]
            numbers = [int(cell[2]) for cell in found]
            if len(numbers) == len(rows) == len(set(numbers)) and (named or set(numbers) == set(pictures)):
                return numbers
    raise SurgdinoError("no column names the pictures", file=path, expected="image00.png, ... in one, each once")
