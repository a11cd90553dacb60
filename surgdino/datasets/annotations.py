"""Cholec80's label files: a phase for every frame, tools for every 25th, one file a video and kind."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from surgdino.datasets.card import Card
from surgdino.datasets.complaints import twice, unexpected
from surgdino.datasets.labels import FrameLabels
from surgdino.datasets.listing import entries
from surgdino.datasets.manifest import Problem
from surgdino.datasets.tables import Table, read_table
from surgdino.errors import nearest

_UNKNOWN = 255


class Annotations:
    """The label files of one kind (`phase` or `tool`), read for every video.

    Attributes:
        files: video number -> annotation file.
        labels: video number -> its labels, as far as they could be read.
        problems: in the order found.
    """

    def __init__(self, kind: str, folder: Path, card: Card) -> None:
        self.kind, self.folder, self.card = kind, folder, card
        self.files: dict[int, Path] = {}
        self.labels: dict[int, FrameLabels] = {}
        self.problems: list[Problem] = []
        pattern = re.compile(rf"video0*(\d+)-{kind}\.txt", re.IGNORECASE)
        for path in entries(folder):
            found = pattern.fullmatch(path.name)
            if not found:
                self.problems.append(unexpected(path, f"video01-{kind}.txt"))
            elif int(found[1]) in self.files:
                self.problems.append(twice(path, self.files[int(found[1])]))
            else:
                self._read(int(found[1]), path)

    def is_sound(self, number: int) -> bool:
        """Whether a video has labels of this kind and nothing is wrong with their file."""
        return number in self.labels and all(problem.file != self.files[number] for problem in self.problems)

    def _read(self, number: int, path: Path) -> None:
        self.files[number] = path
        if self.kind == "phase":
            table = read_table(path, ("Frame", "Phase"), 1)
            values, faults = phase_ids(table, self.card)
        else:
            table = read_table(path, ("Frame", *self.card.tools), self.card.tool_step)
            values, faults = _tool_flags(table, self.card)
        self.problems += [*table.problems, *faults]
        if len(values):
            self.labels[number] = FrameLabels(table.frames[: len(values)], values)


def phase_ids(table: Table, card: Card) -> tuple[np.ndarray, list[Problem]]:
    """Class ids uint8 [n] of the rows before the first unknown phase."""
    ids = {name: position for position, name in enumerate(card.phases)}
    names = [name.strip() for name in table.columns[0]] if table.columns else []
    values = np.fromiter((ids.get(name, _UNKNOWN) for name in names), np.uint8, len(names))
    unknown = np.flatnonzero(values == _UNKNOWN)
    if not len(unknown):
        return values, []
    first, name = int(unknown[0]), names[int(unknown[0])]
    message, fix = f"unknown phase {name!r}", nearest(name, card.phases)
    if name.isdecimal():
        message = "a phase's number instead of its name"
        fix = "write names: releases number the phases differently (one swaps 4 and 6)"
    expected, found = "a phase of the card", _count(len(unknown))
    more = Problem("error", message, table.path, table.row(first), expected, found, fix)
    return values[:first], [more]


def _tool_flags(table: Table, card: Card) -> tuple[np.ndarray, list[Problem]]:
    """0/1 flags uint8 [n, tools] of the rows before the first that holds anything else."""
    flags = {"0": 0, "1": 1}
    values = np.empty((len(table.frames), len(card.tools)), np.uint8)
    for position, column in enumerate(table.columns):
        values[:, position] = [flags.get(cell.strip(), _UNKNOWN) for cell in column]
    bad = np.argwhere(values == _UNKNOWN)
    if not len(bad):
        return values, []
    row, column_number = (int(x) for x in bad[0])
    place, found = f"{table.row(row)}, {card.tools[column_number]}", repr(table.columns[column_number][row])
    fix = "copy it again from the release"
    return values[:row], [Problem("error", "neither 0 nor 1", table.path, place, "0 or 1", found, fix)]


def _count(rows: int) -> str:
    return "it in 1 row" if rows == 1 else f"such in {rows} rows"
