"""Tab-separated label files with a row a frame: Cholec80's phases and tools, m2cai16's phases.

100,000 rows are read in a fraction of a second; faults are reported by row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from surgdino.datasets.card import Card
from surgdino.datasets.class_names import class_finder, from_one
from surgdino.datasets.files import read_text
from surgdino.datasets.manifest import FrameLabels, Problem
from surgdino.errors import SurgdinoError, nearest

_FIRST_ROW = 2  # as an editor counts lines: 1 is the header
_UNKNOWN = 255
_COPY = "copy it again from the release"


def read_phases(path: Path, card: Card, step: int = 1) -> tuple[FrameLabels | None, list[Problem]]:
    """Class ids uint8 [n] of the rows `frame, phase` before the first fault; None where there is no such row."""
    table = _read_table(path, ("Frame", "Phase"), step)
    names = [name.strip() for name in table.columns[0]] if table.columns else []
    find = class_finder(card.phases)
    ids = {name: _UNKNOWN if (found := find(name)) is None else found for name in set(names)}
    values = np.fromiter((ids[name] for name in names), np.uint8, len(names))
    unknown = np.flatnonzero(values == _UNKNOWN)
    if len(unknown):
        first, name = int(unknown[0]), names[int(unknown[0])]
        message, fix = f"unknown phase {name!r}", nearest(name, card.phases)
        if name.isdecimal():
            message = "a phase's number instead of its name"
            if from_one(ids, len(card.phases)):
                message += ", and the numbers seem to count from 1"
            fix = "write names: releases number the phases differently (one swaps 4 and 6)"
        table.fault(message, first, "a phase of the card", f"{len(unknown)} such row(s)", fix)
        values = values[:first]
    return table.labels(values)


def read_tools(path: Path, card: Card) -> tuple[FrameLabels | None, list[Problem]]:
    """0/1 flags uint8 [n, tools] of the rows before the first fault; None where there is no such row."""
    table = _read_table(path, ("Frame", *card.tools), card.tool_step)
    flags = {"0": 0, "1": 1}
    values = np.empty((len(table.frames), len(card.tools)), np.uint8)
    for position, column in enumerate(table.columns):
        values[:, position] = [flags.get(cell.strip(), _UNKNOWN) for cell in column]
    bad = np.argwhere(values == _UNKNOWN)
    if len(bad):
        row, tool = (int(x) for x in bad[0])
        place = f", {card.tools[tool]}"
        table.fault("neither 0 nor 1", row, "0 or 1", repr(table.columns[tool][row]), _COPY, place)
        values = values[:row]
    return table.labels(values)


@dataclass
class _Table:
    """A label file's rows up to the first fault.

    Attributes:
        frames: int64 [n], the first column.
        columns: the texts of the other columns, n each.
        problems: the faults found.
    """

    path: Path
    frames: np.ndarray
    columns: list[list[str]]
    problems: list[Problem]

    def fault(
        self, message: str, row: int, expected: object, found: object, fix: str | None = None, place: str = ""
    ) -> None:
        where = f"row {row + _FIRST_ROW}{place}"
        self.problems.append(Problem("error", message, self.path, where, expected, found, fix))

    def labels(self, values: np.ndarray) -> tuple[FrameLabels | None, list[Problem]]:
        return FrameLabels(self.frames[: len(values)], values) if len(values) else None, self.problems


def _read_table(path: Path, header: Sequence[str], step: int) -> _Table:
    """A table with exactly this header, whose first column counts frames 0, step, 2 step, ... .

    A byte order mark, line ends of any system and empty lines at the end are accepted.
    """
    shown, nothing = "the header " + " ⇥ ".join(header), np.empty(0, np.int64)
    try:
        first, _, body = read_text(path).rstrip().partition("\n")
    except SurgdinoError as error:
        return _Table(path, nothing, [], [Problem.of(error, _COPY)])
    problem = None
    if not first:
        problem = Problem("error", "the file is empty", path, expected=shown, fix=_COPY)
    elif [cell.strip() for cell in first.split("\t")] != list(header):
        fix = f"{_COPY}; other files number or name things differently"
        problem = Problem("error", "wrong header", path, "row 1", shown, first[:80], fix)
    elif not body:
        problem = Problem("error", "no rows under the header", path, expected="one row a labelled frame")
    return _Table(path, nothing, [], [problem]) if problem else _rows(path, body, len(header), step)


def _rows(path: Path, body: str, width: int, step: int) -> _Table:
    table = _Table(path, np.empty(0, np.int64), [], [])
    # One split of the whole text and a look at its separators take a fifth of the time of splitting row by row.
    marks = np.frombuffer(f"{body}\n".encode(), np.uint8)
    marks = marks[(marks == ord("\t")) | (marks == ord("\n"))]
    widths = np.diff(np.flatnonzero(marks == ord("\n")), prepend=-1)
    rows = _leading(widths == width)
    cells = body.replace("\n", "\t").split("\t")
    columns = [cells[column : rows * width : width] for column in range(width)]
    if rows < len(widths):
        table.fault("wrong number of columns", rows, f"{width}, separated by tabs", int(widths[rows]))
    try:
        frames = np.fromiter(map(int, columns[0]), np.int64, rows)
    except (ValueError, OverflowError):
        good = next(i for i, cell in enumerate(columns[0]) if not (cell.strip().isdecimal() and len(cell) < 16))
        frames = np.array([int(cell) for cell in columns[0][:good]], np.int64)
        table.fault("no frame number", good, "a whole number", repr(columns[0][good]))
    kept = _leading(frames == step * np.arange(len(frames)))
    if kept < len(frames):
        found = int(frames[kept])
        message, fix = "the frame numbers do not go on evenly", _COPY
        if kept == 0 and found == 1:
            message, fix = "frames are counted from 1", "count them from 0, as the release does: labels shift otherwise"
        elif kept == 1 and found == 1 and step > 1:
            message = f"frames are counted in rows, not in steps of {step}"
            fix = f"number every row by its frame: 0, {step}, {2 * step}, ..."
        table.fault(message, kept, f"frame {kept * step}", found, fix)
    table.frames, table.columns = frames[:kept], [column[:kept] for column in columns[1:]]
    return table


def _leading(good: np.ndarray) -> int:
    """How many entries of bool [n] are true before the first that is not."""
    return len(good) if good.all() else int(good.argmin())
