"""Label files of triplets: CholecT50's JSON, one a video, and CholecT45's text, four a video."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from surgdino.datasets.card import Card
from surgdino.datasets.class_names import from_one
from surgdino.datasets.files import MOST_DIGITS, read_text
from surgdino.datasets.manifest import FrameLabels, Problem
from surgdino.datasets.objects import OBJECTS, Box, FrameInstances, Instance, VideoInstances
from surgdino.datasets.triplets import TASKS, check_names, triplet_table, vocabulary
from surgdino.errors import SurgdinoError
from surgdino.records import read_json
from surgdino.wording import counted

# triplet, instrument, score, x, y, w, h, verb, target, score, x, y, w, h, phase
ROW = 15
_ROUNDED = 0.02  # by which a box may leave its picture
_POSITIONS = {"triplet": 0, "instrument": 1, "verb": 7, "target": 8, "phase": 14}
_COPY = "copy it again from the release"


def read_triplet_json(path: Path, card: Card) -> tuple[dict[str, FrameLabels], list[Problem]]:
    """The labels of one video from a JSON with rows of 15 for every annotated frame.

    An id of -1 says nothing of that part; the row's phase still counts. A frame with an empty list of rows shows no
    triplet and has no phase. Frames with a fault are left out, and the first fault is reported.

    Returns:
        Task (`triplet`, `instrument`, `verb`, `target`: uint8 [n, classes] of 0/1; `phase`: int16 [n] of class ids;
        `objects`: the instruments' boxes, where it has any) -> labels; empty where the file cannot be read at all.
    """
    try:
        annotations, problems = _annotations(path, card)
    except SurgdinoError as error:
        return {}, [Problem.of(error, _COPY)]
    names = vocabulary(card)
    table = triplet_table(card)
    flags = {task: np.zeros((len(annotations), len(names[task])), np.uint8) for task in TASKS}
    phases = np.full(len(annotations), -1, np.int16)
    sound = np.zeros(len(annotations), bool)
    objects = dict[int, FrameInstances]()
    faults, odd, unboxed = [], [], list[SurgdinoError]()
    for place, (number, rows) in enumerate(annotations.items()):
        try:
            for task, value in _ids(path, number, rows, names):
                if task != "phase":
                    flags[task][place, value] = 1
                elif phases[place] not in (-1, value):
                    both = names["phase"][phases[place]], names["phase"][value]
                    raise _fault(path, "the rows name two phases", f"frame {number}", *both)
                else:
                    phases[place] = value
            sound[place] = True
            odd += _odd_rows(path, number, rows, table)
            if (boxes := _objects(path, number, rows, names["instrument"], unboxed)) is not None:
                objects[number] = boxes
        except SurgdinoError as fault:
            faults.append(fault)
    fix = _counted_from_1(annotations, names) if faults else None
    problems += _summed_up(faults, "frame", "error", fix) + _summed_up(odd, "row", "warning")
    problems += _summed_up(unboxed, "row", "warning")
    numbers = np.array(list(annotations), np.int64)
    labels = {task: FrameLabels(numbers[sound], values[sound]) for task, values in flags.items()}
    known = sound & (phases >= 0)
    if known.any():
        labels["phase"] = FrameLabels(numbers[known], phases[known])
    if any(frame.objects for frame in objects.values()):
        labels[OBJECTS] = VideoInstances(objects, names["instrument"])
    return labels, problems


def _objects(
    path: Path, number: int, rows: list[list], instruments: tuple[str, ...], faults: list[SurgdinoError]
) -> FrameInstances | None:
    """The instruments' boxes in a frame; None where one of them has no box, as in the full release, or one that cannot
    be, which is added to `faults`.

    A row is a triplet, so an instrument that does two things has two rows with one box.
    """
    found: dict[tuple[str, Box], Instance] = {}
    for place, row in enumerate(rows, start=1):
        if int(row[1]) < 0:
            continue
        if all(value == -1 for value in row[3:7]):
            return None
        left, top, width, height = (float(v) if isinstance(v, int | float) else math.nan for v in row[3:7])
        box = left, top, width, height
        if not (min(box) >= 0 and left + width <= 1 + _ROUNDED and top + height <= 1 + _ROUNDED):  # false of NaN
            where = f"frame {number}, row {place}, values 4 to 7"
            expected, what = "x, y, w, h in shares of the picture, or -1", "not a box: of no use to task=instances"
            faults.append(_fault(path, what, where, expected, str(row[3:7])[:60]))
            return None
        found[instruments[int(row[1])], box] = Instance(instruments[int(row[1])], box=box)
    return FrameInstances(path, f"frame {number}", tuple(found.values()), relative=True)


def _annotations(path: Path, card: Card) -> tuple[dict[int, Any], list[Problem]]:
    """Frame number -> its rows, unchecked, by ascending number; and what else is wrong with the file.

    Raises:
        SurgdinoError: not JSON, or without annotations.
    """
    content = _parsed(path)
    raw = content.get("annotations")
    if not isinstance(raw, Mapping):
        found = f"keys {', '.join(map(str, content))}" if raw is None else type(raw).__name__
        raise _fault(path, "no annotations", "annotations", "a mapping from frame number to rows", found)
    annotations: dict[int, Any] = {}
    for key, rows in raw.items():
        if not (key.isdecimal() and len(key) <= MOST_DIGITS):
            raise _fault(path, "not a frame number", "annotations", "numbers such as 25", repr(key[:40]))
        if int(key) in annotations:
            raise _fault(path, "a frame is annotated twice", f"annotations.{key}", "every number once", int(key))
        annotations[int(key)] = rows
    problems = []
    categories = content.get("categories")
    if not isinstance(categories, Mapping):
        categories = {}  # the ids are then taken as the card's
    for task, names in vocabulary(card).items():
        given = categories.get(task)
        if isinstance(given, Mapping) and all(str(key).isdecimal() and len(key) <= MOST_DIGITS for key in given):
            # Releases explain -1 in further entries, which are not ids.
            by_id = {int(key): name for key, name in given.items()}
            problems += check_names(by_id, names, path, f"categories.{task}.{{}}")
    if problems:
        return {}, problems  # every id would mean something else
    number = int("".join(filter(str.isdecimal, path.stem)))
    if content.get("video", number) != number:
        what, fix = "the file's name and its content name two videos", "find out which one is right"
        problems.append(Problem("error", what, path, "video", number, content["video"], fix))
    return dict(sorted(annotations.items())), problems


def _parsed(path: Path) -> Mapping[str, Any]:
    content = read_json(path, fix=_COPY)
    if not isinstance(content, Mapping):
        expected = "a mapping with the key annotations"
        raise _fault(path, "not a label file", None, expected, type(content).__name__)
    return content


def _ids(path: Path, number: int, rows: object, names: Mapping[str, tuple[str, ...]]) -> Iterator[tuple[str, int]]:
    """(task, id) of every part that a frame's rows name."""
    if not isinstance(rows, list):
        raise _fault(path, "not a list of rows", f"frame {number}", "a list", type(rows).__name__)
    for place, row in enumerate(rows, start=1):
        if not isinstance(row, list) or len(row) != ROW:
            found = f"{len(row)} values" if isinstance(row, list) else repr(row)
            raise _fault(path, "not an annotation", f"frame {number}, row {place}", f"{ROW} values", found)
        for task, position in _POSITIONS.items():
            value, count = row[position], len(names[task])
            is_whole = isinstance(value, int) and not isinstance(value, bool)
            if not is_whole and not (isinstance(value, float) and value.is_integer()):
                expected = "a whole number"
            elif not names[task] or value == -1:
                continue
            elif not 0 <= value < count:
                expected = f"-1 to {count - 1}"
            else:
                yield task, int(value)
                continue
            where = f"frame {number}, row {place}, value {position + 1} ({task})"
            raise _fault(path, f"not a valid {task} id", where, expected, repr(value))


def _counted_from_1(annotations: Mapping[int, Any], names: Mapping[str, tuple[str, ...]]) -> str | None:
    """What to do where the ids of a part seem to count from 1; all but the last of them would be read, as others."""
    lists = [rows for rows in annotations.values() if isinstance(rows, list)]
    rows = [row for each in lists for row in each if isinstance(row, list) and len(row) == ROW]
    for task, position in _POSITIONS.items():
        if from_one({str(row[position]) for row in rows} - {"-1"}, len(names[task])):
            return f"the {task} ids seem to count from 1: count them from 0, as the release does"
    return None


def _odd_rows(path: Path, number: int, rows: list[list], table: np.ndarray) -> list[SurgdinoError]:
    """Rows whose instrument, verb or target is not that of their triplet."""
    odd = []
    for place, row in enumerate(rows, start=1):
        triplet, parts = int(row[0]), (int(row[1]), int(row[7]), int(row[8]))
        if triplet >= 0 and -1 not in parts and parts != tuple(table[triplet, 1:4]):
            what = f"instrument, verb and target are not those of triplet {triplet}"
            expected, found = (", ".join(map(str, ids)) for ids in (table[triplet, 1:4], parts))
            odd.append(_fault(path, what, f"frame {number}, row {place}", expected, found))
    return odd


def _summed_up(
    faults: list[SurgdinoError], unit: str, severity: Literal["error", "warning"], fix: str | None = None
) -> list[Problem]:
    """The first of many faults with the count of the others: a script that writes one fault writes it everywhere.

    Args:
        fix: what to do about all of them; None takes the first one's.
    """
    if not faults:
        return []
    first, others = faults[0], len(faults) - 1
    more = f"; {others} more {unit}{'s are' if others > 1 else ' is'} at fault in this file" if others else ""
    return [
        Problem(severity, first.what + more, first.file, first.place, first.expected, first.found, fix or first.fix)
    ]


def _fault(path: Path, what: str, place: str | None, expected: object, found: object) -> SurgdinoError:
    return SurgdinoError(what, file=path, place=place, expected=expected, found=found, fix=_COPY)


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
    return labels, problems or _disagreements(root, name, labels, card)


def read_flags(path: Path, classes: tuple[str, ...]) -> tuple[np.ndarray, list[Problem]]:
    """Rows of comma-separated text as int64 [n, 1 + classes]: a frame number and one 0 or 1 a class; up to a fault."""
    width = 1 + len(classes)
    nothing = np.empty((0, width), np.int64)
    try:
        text = read_text(path).rstrip()
        if not text:
            raise SurgdinoError("the file is empty", file=path)
    except SurgdinoError as error:
        return nothing, [Problem.of(error, _COPY)]
    lines = text.split("\n")
    try:
        table = np.loadtxt(lines, dtype=np.int64, delimiter=",", ndmin=2, comments=None)
        flagged = (table[:, 1:] == 0) | (table[:, 1:] == 1)
        if table.shape == (len(lines), width) and flagged.all() and (np.diff(table[:, 0], prepend=-1) > 0).all():
            return table, []
    except (ValueError, OverflowError):
        pass  # reported by row below
    rows: list[list[int]] = []
    for number, line in enumerate(lines, start=1):
        cells = [cell.strip() for cell in line.split(",")]
        place = f"row {number}"
        odd = next((column for column, cell in enumerate(cells[1:]) if cell not in ("0", "1")), None)
        if len(cells) != width:
            fault = _fault(path, "wrong number of columns", place, f"{width}, separated by commas", len(cells))
        elif not (cells[0].isdecimal() and len(cells[0]) <= MOST_DIGITS):
            expected = "a frame number in the first column, and no header"
            fault = _fault(path, "not a frame number", place, expected, repr(cells[0][:40]))
        elif rows and int(cells[0]) <= rows[-1][0]:
            fault = _fault(path, "the frame numbers do not ascend", place, f"more than {rows[-1][0]}", cells[0])
        elif odd is not None:
            fault = _fault(path, "neither 0 nor 1", f"{place}, {classes[odd]}", "0 or 1", repr(cells[1 + odd]))
        else:
            rows.append([int(cell) for cell in cells])
            continue
        return np.array(rows, np.int64).reshape(-1, width), [Problem.of(fault)]
    return np.array(rows, np.int64), []


def _disagreements(root: Path, name: str, labels: dict[str, FrameLabels], card: Card) -> list[Problem]:
    """The four files of a video must have the same frames, and with a triplet its parts."""
    problems = []
    triplets, table = labels["triplet"], triplet_table(card)
    for column, task in enumerate(TASKS[1:], start=1):
        path, parts = root / task / f"{name}.txt", labels[task]
        if not np.array_equal(parts.numbers, triplets.numbers):
            expected, found = f"the {len(triplets)} frames of triplet/{name}.txt", f"{len(parts)} frames"
            problems.append(Problem("error", "other frames than the triplets'", path, None, expected, found, _COPY))
            continue
        implied = np.zeros(parts.array.shape, bool)
        for triplet in range(len(table)):
            implied[triplets.array[:, triplet] == 1, table[triplet, column]] = True
        missing = np.argwhere(implied & (parts.array == 0))
        if len(missing):
            row, part = (int(x) for x in missing[0])
            rows = len({int(r) for r in missing[:, 0]})
            what = f"a triplet without its {task}, in {counted(rows, 'row')}"
            place = f"row {row + 1}, {vocabulary(card)[task][part]}"
            problems.append(Problem("warning", what, path, place, 1, 0, "find out which file is right"))
    return problems
