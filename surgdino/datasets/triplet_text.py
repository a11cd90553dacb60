"""CholecT45's label files: four a video, without header, a row a frame: its number, then a 0 or 1 for every class."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from surgdino.datasets.card import Card
from surgdino.datasets.labels import FrameLabels
from surgdino.datasets.manifest import Problem
from surgdino.datasets.triplets import TASKS, triplet_table, vocabulary

_COPY = "copy it again from the release"


def read_triplet_text(root: Path, name: str, card: Card) -> tuple[dict[str, FrameLabels], list[Problem]]:
    """The labels of video `name` (its files' stem) from the folders `triplet`, `instrument`, `verb` and `target`.

    Returns:
        Task -> labels, uint8 [n, classes]; of a file with a fault, the rows before it. Tasks without a file are left
        out.
    """
    labels: dict[str, FrameLabels] = {}
    problems: list[Problem] = []
    for task in TASKS:
        path = root / task / f"{name}.txt"
        if not path.is_file():
            problems.append(Problem("error", f"{name} has no {task} labels", path, None, None, "no such file", _COPY))
            continue
        table, faults = read_flags(path, vocabulary(card)[task])
        problems += faults
        if len(table):
            labels[task] = FrameLabels(table[:, 0], table[:, 1:].astype(np.uint8))
    return labels, problems + ([] if problems else _disagreements(root, name, labels, card))


def read_flags(path: Path, classes: tuple[str, ...]) -> tuple[np.ndarray, list[Problem]]:
    """Rows as int64 [n, 1 + classes], up to the first that isn't a frame number and one 0 or 1 a class."""
    width = 1 + len(classes)
    try:
        lines = path.read_bytes().decode("utf-8-sig").rstrip().splitlines()
    except UnicodeDecodeError:
        what = "not a text file"
        return np.empty((0, width), np.int64), [Problem("error", what, path, None, "comma-separated text", None, _COPY)]
    if not lines:
        return np.empty((0, width), np.int64), [Problem("error", "the file is empty", path, fix=_COPY)]
    try:
        table = np.loadtxt(lines, dtype=np.int64, delimiter=",", ndmin=2, comments=None)
        rows = len(table) if table.shape[1] == width and len(table) == len(lines) else 0
    except ValueError:
        table, rows = np.empty((0, width), np.int64), 0
    if rows:
        flagged = ((table[:, 1:] == 0) | (table[:, 1:] == 1)).all(1)
        ordered = np.diff(table[:, 0], prepend=-1) > 0
        good = flagged & ordered
        if good.all():
            return table, []
    return _up_to_the_fault(path, lines, classes)


def _up_to_the_fault(path: Path, lines: list[str], classes: tuple[str, ...]) -> tuple[np.ndarray, list[Problem]]:
    rows: list[list[int]] = []
    width = 1 + len(classes)
    problems: list[Problem] = []

    def told(what: str, place: str, expected: str, found: object) -> None:
        problems.append(Problem("error", what, path, place, expected, found, _COPY))

    for number, line in enumerate(lines, start=1):
        cells = [cell.strip() for cell in line.split(",")]
        place = f"row {number}"
        odd = next((column for column, cell in enumerate(cells[1:]) if cell not in ("0", "1")), None)
        if len(cells) != width:
            told("wrong number of columns", place, f"{width}, separated by commas", len(cells))
        elif not cells[0].isdecimal():
            told("not a frame number", place, "a frame number in the first column, and no header", repr(cells[0]))
        elif rows and int(cells[0]) <= rows[-1][0]:
            told("the frame numbers do not ascend", place, f"more than {rows[-1][0]}", cells[0])
        elif odd is not None:
            told("neither 0 nor 1", f"{place}, {classes[odd]}", "0 or 1", repr(cells[1 + odd]))
        if problems:
            break
        rows.append([int(cell) for cell in cells])
    return np.array(rows, np.int64).reshape(-1, width), problems


def _disagreements(root: Path, name: str, labels: dict[str, FrameLabels], card: Card) -> list[Problem]:
    """The four files of a video against one another: the same frames, and with a triplet its parts."""
    problems = []
    triplets, table = labels["triplet"], triplet_table(card)
    for column, task in enumerate(TASKS[1:], start=1):
        path, parts = root / task / f"{name}.txt", labels[task]
        if not np.array_equal(parts.numbers, triplets.numbers):
            expected = f"the {len(triplets)} frames of {root.name}/triplet/{name}.txt"
            problems.append(
                Problem("error", "other frames than the triplets'", path, None, expected, f"{len(parts)} frames", _COPY)
            )
            continue
        implied = np.zeros(parts.array.shape, bool)
        for triplet in range(len(table)):
            implied[triplets.array[:, triplet] == 1, table[triplet, column]] = True
        missing = np.argwhere(implied & (parts.array == 0))
        if len(missing):
            row, part = (int(x) for x in missing[0])
            rows = len({int(r) for r in missing[:, 0]})
            what = f"a triplet without its {task}, in {rows} row{'s' if rows > 1 else ''}"
            place = f"row {row + 1}, {vocabulary(card)[task][part]}"
            problems.append(Problem("warning", what, path, place, 1, 0, "find out which file is right"))
    return problems
