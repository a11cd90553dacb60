"""CholecT50's label files: one JSON a video, with rows of 15 for every annotated frame."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from surgdino.datasets.card import Card
from surgdino.datasets.labels import FrameLabels
from surgdino.datasets.manifest import Problem
from surgdino.datasets.triplets import check_names, triplet_table, vocabulary

# triplet, instrument, score, x, y, w, h, verb, target, score, x, y, w, h, phase
ROW = 15
POSITIONS = {"triplet": 0, "instrument": 1, "verb": 7, "target": 8, "phase": 14}
_COPY = "copy it again from the release"


class _FaultError(Exception):
    """One thing wrong in a file: what, where, expected, found."""


def read_triplet_json(path: Path, card: Card) -> tuple[dict[str, FrameLabels], list[Problem]]:
    """The labels of one video.

    An id of -1 says nothing of that part; the row's phase stands all the same. A frame whose list of rows is empty
    shows no triplet and has no phase. Frames with a fault are left out, and the first fault is told.

    Returns:
        Task (`triplet`, `instrument`, `verb`, `target`: uint8 [n, classes] of 0/1; `phase`: int16 [n] of class ids) ->
        labels; empty where the file can't be read at all.
    """
    try:
        annotations, problems = _annotations(path, card)
    except _FaultError as fault:
        return {}, [_problem(path, *fault.args)]
    names = vocabulary(card)
    table = triplet_table(card)
    flags = {task: np.zeros((len(annotations), len(names[task])), np.uint8) for task in POSITIONS if task != "phase"}
    phases = np.full(len(annotations), -1, np.int16)
    sound = np.zeros(len(annotations), bool)
    faults, odd = [], []
    for place, (number, rows) in enumerate(annotations.items()):
        try:
            for task, value in _ids(number, rows, names):
                if task != "phase":
                    flags[task][place, value] = 1
                elif phases[place] not in (-1, value):
                    told = names["phase"]
                    raise _FaultError("the rows name two phases", f"frame {number}", told[phases[place]], told[value])
                else:
                    phases[place] = value
            sound[place] = True
            odd += _odd_rows(number, rows, table)
        except _FaultError as fault:
            faults.append(fault)
    problems += _summed_up(path, faults, "frame", "error") + _summed_up(path, odd, "row", "warning")
    numbers = np.array(list(annotations), np.int64)
    labels = {task: FrameLabels(numbers[sound], values[sound]) for task, values in flags.items()}
    known = sound & (phases >= 0)
    if known.any():
        labels["phase"] = FrameLabels(numbers[known], phases[known])
    return labels, problems


def _annotations(path: Path, card: Card) -> tuple[dict[int, Any], list[Problem]]:
    """Frame number -> its rows, unchecked, by ascending number; and what else is odd about the file.

    Raises:
        _FaultError: not JSON, or nothing in it that could be read as annotations.
    """
    content = _parsed(path)
    raw = content.get("annotations")
    if not isinstance(raw, Mapping):
        found = f"keys {', '.join(map(str, content))}" if raw is None else type(raw).__name__
        raise _FaultError("no annotations", "annotations", "a mapping from frame number to rows", found)
    annotations: dict[int, Any] = {}
    for key, rows in raw.items():
        if not key.isdecimal():
            raise _FaultError("not a frame number", "annotations", "numbers such as 25", repr(key))
        if int(key) in annotations:
            raise _FaultError("a frame is annotated twice", f"annotations.{key}", "every number once", int(key))
        annotations[int(key)] = rows
    problems = _categories(content.get("categories"), path, card)
    if problems:
        return {}, problems  # every id would mean something else
    number = int("".join(filter(str.isdecimal, path.stem)))
    if content.get("video", number) != number:
        what, fix = "the file's name and its content name two videos", "find out which one is right"
        problems.append(Problem("error", what, path, "video", number, content["video"], fix))
    return dict(sorted(annotations.items())), problems


def _parsed(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_bytes().decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        expected, place = error.msg[0].lower() + error.msg[1:], f"line {error.lineno}, column {error.colno}"
        found = repr(error.doc[error.pos : error.pos + 12]) if error.pos < len(error.doc) else "the end of the file"
        raise _FaultError("not JSON", place, f"JSON ({expected})", found) from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise _FaultError("not JSON", None, "JSON in UTF-8", str(error)) from error
    if not isinstance(content, Mapping):
        raise _FaultError("not a label file", None, "a mapping with the key annotations", type(content).__name__)
    return content


def _categories(categories: Any, path: Path, card: Card) -> list[Problem]:
    if not isinstance(categories, Mapping):
        return []  # the ids are then taken as the card's
    problems = []
    for task, names in vocabulary(card).items():
        found = categories.get(task)
        if isinstance(found, Mapping) and all(str(key).isdecimal() for key in found):
            # Releases say what -1 stands for with further entries; they aren't ids.
            told = {int(key): name for key, name in found.items()}
            problems += check_names(told, names, path, f"categories.{task}.{{}}")
    return problems


def _ids(number: int, rows: Any, names: Mapping[str, tuple[str, ...]]) -> Iterator[tuple[str, int]]:
    """(task, id) of every part that a frame's rows name."""
    if not isinstance(rows, list):
        raise _FaultError("not a list of rows", f"frame {number}", "a list", type(rows).__name__)
    for place, row in enumerate(rows, start=1):
        if not isinstance(row, list) or len(row) != ROW:
            found = f"{len(row)} values" if isinstance(row, list) else repr(row)
            raise _FaultError("not an annotation", f"frame {number}, row {place}", f"{ROW} values", found)
        for task, position in POSITIONS.items():
            value, count = row[position], len(names[task])
            if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
                expected = "a whole number"
            elif not names[task] or value == -1:
                continue
            elif not 0 <= value < count:
                expected = f"-1 to {count - 1}"
            else:
                yield task, int(value)
                continue
            where = f"frame {number}, row {place}, value {position + 1} ({task})"
            raise _FaultError(f"not a valid {task} id", where, expected, repr(value))


def _odd_rows(number: int, rows: list[list], table: np.ndarray) -> list[_FaultError]:
    """Rows whose instrument, verb or target isn't that of their triplet."""
    found = []
    for place, row in enumerate(rows, start=1):
        triplet, told = int(row[0]), (int(row[1]), int(row[7]), int(row[8]))
        if triplet < 0 or -1 in told or told == tuple(table[triplet, 1:4]):
            continue
        expected = ", ".join(map(str, table[triplet, 1:4]))
        what = f"instrument, verb and target are not those of triplet {triplet}"
        found.append(_FaultError(what, f"frame {number}, row {place}", expected, ", ".join(map(str, told))))
    return found


def _summed_up(path: Path, faults: list[_FaultError], unit: str, severity: Any) -> list[Problem]:
    """The first of many faults, with the count of the others: a file broken by a script is broken everywhere."""
    if not faults:
        return []
    what, place, expected, found = faults[0].args
    others = len(faults) - 1
    if others:
        what += f"; {others} more {unit}{'s are' if others > 1 else ' is'} at fault in this file"
    return [_problem(path, what, place, expected, found, severity)]


def _problem(path: Path, what: str, place: Any, expected: Any, found: Any, severity: Any = "error") -> Problem:
    return Problem(severity, what, path, place, expected, found, _COPY)
