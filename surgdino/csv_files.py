"""CSV that a spreadsheet may open: names from outside stay text, whatever they begin with."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

from surgdino.errors import SurgdinoError
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


def csv_rows(text: str, file: Path, separator: str = ",") -> list[list[str]]:
    """The rows of a CSV, empty ones included; `file` is where its text was found, for messages.

    Raises:
        SurgdinoError: it is none, such as one with a cell of more than 131,072 characters.
    """
    try:
        return list(csv.reader(io.StringIO(text, newline=""), delimiter=separator))
    except csv.Error as error:
        raise SurgdinoError("not a CSV", file=file, found=error, fix="save the table as CSV again") from error


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
