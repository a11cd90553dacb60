"""The phases that tables of a group's own tell of: rows of `label_table.py`, by video, as labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from surgdino.datasets.class_names import class_finder, from_one
from surgdino.datasets.files import letters
from surgdino.datasets.label_table import END_OF_VIDEO, LabelRow, LabelTable
from surgdino.datasets.manifest import FrameLabels, Labels, Problem, SecondLabels, SegmentLabels, Video
from surgdino.errors import SurgdinoError, nearest

_MOST_CLASSES = 1000


def read_label_tables(
    files: Mapping[Path, Video | None], videos: Sequence[Video], classes: Sequence[str] = ()
) -> tuple[Labels | None, list[Problem], str]:
    """The phases in tables; rows in any order, of any of the videos.

    Rows with a fault are left out; each kind of fault is reported once a file.

    Args:
        files: the tables; with its video where a file is named after one.
        videos: those they may name.
        classes: the labels in the order of their ids; empty takes those in the files, in alphabetical order.

    Returns:
        The labels, the problems, and what was understood: `12 segments, seconds, 3 of 3 videos`.

    Raises:
        SurgdinoError: not such a file at all, where there is just one.
    """
    tables: list[LabelTable] = []
    problems: list[Problem] = []
    for path, own in files.items():
        try:
            tables.append(LabelTable(path, videos, own))
        except SurgdinoError as error:
            if len(files) == 1:
                raise
            problems.append(Problem.of(error))
    parsed = [(table, list(table.parsed())) for table in tables]
    names = list(classes) or sorted({row.label for _, rows in parsed for row in rows})
    if len(names) > _MOST_CLASSES:
        what, fix = f"{len(names):,} different labels", "check which column holds the labels"
        expected = f"at most {_MOST_CLASSES:,} classes"
        raise SurgdinoError(what, file=next(iter(files)), expected=expected, fix=fix)
    if classes:
        _refuse_numbers(parsed, len(names))
    else:
        _check_spellings(parsed)
    find, count = class_finder(names), 0
    values: dict[str, FrameLabels | SecondLabels | SegmentLabels] = {}
    for table, rows in parsed:
        for video, found in _by_video(table, rows, find, names).items():
            if video in values:
                fix = "keep one of them"
                table.tell("labels of a video that another file has too", found[0].place, "one file", video, fix)
                continue
            values[video] = _values(table, found, find)
            count += len(found)
    missing = [video.id for video in videos if video.id not in values]
    if missing and values:
        what = f"{len(missing)} of {len(videos)} videos have no labels, the first is {missing[0]}"
        parsed[0][0].tell(
            what, None, "rows of every video", None, "fine where they are only to be predicted", error=False
        )
    for table in tables:
        problems += table.problems.values()
    understood = f"{count:,} {_understood(tables)}, {len(values)} of {len(videos)} videos"
    return Labels("phase", tuple(names), values) if values else None, problems, understood


def _understood(tables: Sequence[LabelTable]) -> str:
    """What the rows are and how their times count: `segments, seconds`."""
    kinds = dict.fromkeys("labelled moments" if "moment" in table.columns else "segments" for table in tables)
    units = dict.fromkeys(f"{table.unit}s" + table.how for table in tables)
    return f"{' and '.join(kinds)}, {' and '.join(units)}"


def _refuse_numbers(parsed: Sequence[tuple[LabelTable, list[LabelRow]]], phases: int) -> None:
    """Ids in the place of names, which seem to count from 1; other numbers are told as unknown labels."""
    labels = {row.label: (table, row) for table, rows in parsed for row in rows}
    if from_one(labels, phases):
        table, row = labels[str(phases)]
        what, expected = "numbers of phases, which seem to count from 1", "the names in dataset.phases"
        raise SurgdinoError(what, file=table.path, place=row.place, expected=expected, found=row.label)


def _by_video(
    table: LabelTable, rows: Sequence[LabelRow], find: Callable[[str], int | None], names: Sequence[str]
) -> dict[str, list[LabelRow]]:
    """Video id -> its rows in the order of their starts, each moment once."""
    by_video: dict[str, dict[float, LabelRow]] = {}
    for row in rows:
        if find(row.label) is None:
            table.tell("unknown label", row.place, "one of dataset.phases", row.label, nearest(row.label, names))
            continue
        first = by_video.setdefault(row.video, {}).setdefault(row.start, row)
        if first.label != row.label:
            table.tell("two labels for one moment", row.place, first.label, row.label, "keep one of the rows")
        elif first.end != row.end:
            what, found = "two segments that start together", f"ends at {first.end:g} and {row.end:g}"
            table.tell(what, row.place, "one end", found, "keep one of the rows")
        elif first is not row:
            table.tell("a row twice", row.place, "each once", f"{first.place} too", "remove one of them", error=False)
    return {video: [found[start] for start in sorted(found)] for video, found in by_video.items()}


def _values(
    table: LabelTable, rows: list[LabelRow], find: Callable[[str], int | None]
) -> FrameLabels | SecondLabels | SegmentLabels:
    """The labels of one video from its rows in the order of their starts."""
    starts = np.array([row.start for row in rows])
    classes = np.array([find(row.label) for row in rows], np.int16)
    if "moment" in table.columns:
        _check_moments(table, rows, starts)
        if table.unit == "frame":
            return FrameLabels(starts.astype(np.int64), classes)
        return SecondLabels(starts, classes)
    ends = np.array([row.end for row in rows])
    following = np.append(starts[1:], END_OF_VIDEO)
    if table.unit == "frame" and "end" in table.columns and len(rows) > 1 and (ends[:-1] + 1 == following[:-1]).all():
        ends, table.how = ends + 1, " (ends included)"  # 0 to 9, 10 to 19
    has_ends = bool(table.columns.keys() & {"end", "duration"})
    if not has_ends:
        ends = following
    overlapping = np.flatnonzero(ends > following + 1e-6)
    if has_ends and len(overlapping):
        first, second = rows[overlapping[0]], rows[overlapping[0] + 1]
        fix = "end each segment where the next one starts"
        table.tell(
            "segments that overlap", second.place, f"a start of {first.end:g} or later", f"{second.start:g}", fix
        )
    return SegmentLabels(starts, np.minimum(ends, following), classes, by_frame=table.unit == "frame")


def _check_moments(table: LabelTable, rows: list[LabelRow], starts: np.ndarray) -> None:
    """Rows of changing phases at uneven distances are where phases start, and not samples."""
    gaps = np.diff(starts)
    changes = all(first.label != second.label for first, second in pairwise(rows))
    if len(gaps) and changes and (gaps.max() > 1.5 * gaps.min() or gaps.min() > (250 if table.unit == "frame" else 10)):
        table.tell(
            "every row has another label than the one before: are these samples, or the starts of phases?",
            rows[1].place,
            f"rows at even distances, one for every labelled {table.unit}",
            f"rows {gaps.min():g} to {gaps.max():g} {table.unit}s apart",
            "name the column `start` if each phase lasts until the next row",
            error=False,
        )


def _check_spellings(parsed: Sequence[tuple[LabelTable, list[LabelRow]]]) -> None:
    """Labels that differ in case, spaces, hyphens or accents alone are probably one class."""
    seen: dict[str, str] = {}
    for table, rows in parsed:
        for row in rows:
            first = seen.setdefault(letters(row.label) or row.label, row.label)
            if first != row.label:
                what, fix = f"two spellings of one label: {first!r} and {row.label!r}", "write it in one way everywhere"
                table.tell(what, row.place, first, row.label, fix, error=False)
