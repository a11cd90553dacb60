"""CSV that a spreadsheet may open: names from outside stay text, whatever they begin with."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

from surgdino.paths import atomic_write

# Spreadsheets take a cell that begins with one of these for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    """Write a table, whole or not at all; each text in it as `harmless` gives it."""
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        for row in chain([header], rows):
            writer.writerow([harmless(cell) if isinstance(cell, str) else cell for cell in row])
    return path


def harmless(text: str) -> str:
    """The text of a cell, behind an apostrophe where a spreadsheet would run it; `as_meant` takes it off again."""
    if not text.startswith(_FORMULA):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


def as_meant(cell: str) -> str:
    """What `harmless` was given."""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(_FORMULA) else cell
