"""A group's own labels as a CSV: the video (where there are several), a frame or a second, and a label."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from surgdino.datasets.files import plain_name, read_text
from surgdino.datasets.manifest import FrameLabels, Labels, Problem, SecondLabels, Video
from surgdino.errors import SurgdinoError, nearest

_DECIMAL = re.compile(r"^(\d+),(\d+)$")  # as spreadsheets write it in half of Europe
_WHEN = ("frame", "second")
_HEADER = "columns video, frame (or second) and label"


@dataclass(frozen=True)
class _Row:
    place: str
    video: str
    when: float
    label: str


def read_label_table(
    path: Path, videos: Sequence[Video], classes: Sequence[str] = ()
) -> tuple[Labels | None, list[Problem]]:
    """The phases that a CSV gives; rows in any order, of any of the videos.

    The header names its columns: `label`, `frame` (0-based) or `second` (from the first frame), and `video`, the
    video's id or file name, which may be missing where there is one video. Commas, semicolons and tabs separate; with
    the latter two a decimal comma is read too. Rows with a fault are left out; each kind of fault is told once.

    Args:
        path: the file.
        videos: those it may name.
        classes: the labels in the order of their ids; empty takes those in the file, in alphabetical order.

    Raises:
        SurgdinoError: not such a file at all.
    """
    header, rows = _cells(path)
    columns = _columns(path, header, len(videos))
    problems: dict[str, Problem] = {}
    parsed = [row for row in (_parsed(path, place, cells, columns, problems) for place, cells in rows) if row]
    names = list(classes) or sorted({row.label for row in parsed})
    when = _by_video(path, parsed, videos, names, "video" in columns, problems)
    kind = SecondLabels if "second" in columns else FrameLabels
    values = {video: _values(kind, moments) for video, moments in when.items() if moments}
    missing = [video.id for video in videos if video.id not in values]
    if missing and values:
        what = f"{len(missing)} of {len(videos)} videos have no labels, the first is {missing[0]}"
        _tell(
            problems,
            what,
            path,
            None,
            "rows of every video",
            None,
            "fine where they are only to be predicted",
            "warning",
        )
    return Labels("phase", tuple(names), values) if values else None, list(problems.values())


def _by_video(
    path: Path,
    rows: Sequence[_Row],
    videos: Sequence[Video],
    names: Sequence[str],
    named: bool,
    problems: dict[str, Problem],
) -> dict[str, dict[float, int]]:
    """Video id -> frame or second -> class id; `named` where the rows say which video they are of."""
    ids, positions = _spellings(videos), {name: place for place, name in enumerate(names)}
    when: dict[str, dict[float, int]] = {}
    for row in rows:
        video, label = ids.get(row.video) if named else videos[0].id, positions.get(row.label)
        if video is None:
            fix = nearest(row.video, ids)
            _tell(problems, "unknown video", path, row.place, "a video of the folder", row.video, fix)
        elif label is None:
            fix = nearest(row.label, names)
            _tell(problems, "unknown label", path, row.place, "one of dataset.phases", row.label, fix)
        else:
            first = when.setdefault(video, {}).setdefault(row.when, label)
            if first != label:
                what = "two labels for one moment"
                _tell(problems, what, path, row.place, names[first], row.label, "keep one of the rows")
    return when


def _values(kind: type, moments: Mapping[float, int]) -> FrameLabels | SecondLabels:
    when = np.array(sorted(moments))
    classes = np.array([moments[moment] for moment in when.tolist()], np.int16)
    return kind(when if kind is SecondLabels else when.astype(np.int64), classes)


def _cells(path: Path) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """The header, and (place, cells) of every row that is not empty."""
    text = read_text(path)
    first = text.lstrip().partition("\n")[0]
    separator = max(";\t,", key=first.count)
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator))
    except csv.Error as error:
        raise SurgdinoError("not a CSV", file=path, found=str(error)) from error
    filled = [
        (f"row {n}", [c.strip() for c in cells]) for n, cells in enumerate(rows, start=1) if any(map(str.strip, cells))
    ]
    if not filled:
        raise SurgdinoError("the file is empty", file=path, expected=_HEADER)
    header = [name.lower() for name in filled[0][1]]
    if separator != ",":
        filled = [(place, [_DECIMAL.sub(r"\1.\2", cell) for cell in cells]) for place, cells in filled]
    return header, filled[1:]


def _columns(path: Path, header: list[str], videos: int) -> dict[str, int]:
    """Name -> position of the columns that count."""
    header = ["label" if name == "phase" else name for name in header]
    columns = {name: header.index(name) for name in ("video", *_WHEN, "label") if name in header}
    found, fix = ", ".join(header), "name the columns in the first row"
    if "label" not in columns or sum(name in columns for name in _WHEN) != 1:
        raise SurgdinoError(
            "the CSV has other columns", file=path, place="row 1", expected=_HEADER, found=found, fix=fix
        )
    if "video" not in columns and videos > 1:
        expected = f"a column video: there are {videos} of them"
        raise SurgdinoError(
            "the CSV names no videos", file=path, place="row 1", expected=expected, found=found, fix=fix
        )
    return columns


def _parsed(
    path: Path, place: str, cells: list[str], columns: Mapping[str, int], problems: dict[str, Problem]
) -> _Row | None:
    if len(cells) <= max(columns.values()):
        expected = f"{max(columns.values()) + 1} or more"
        _tell(problems, "too few columns", path, place, expected, len(cells), "complete the row")
        return None
    unit = "second" if "second" in columns else "frame"
    moment, label = cells[columns[unit]], cells[columns["label"]]
    if not re.fullmatch(r"\d+" if unit == "frame" else r"\d+(\.\d+)?", moment):
        expected = "a whole number from 0" if unit == "frame" else "a number from 0"
        _tell(problems, f"not a {unit}", path, place, expected, repr(moment), "correct the row")
        return None
    if not label:
        _tell(problems, "no label", path, place, "a label", "nothing", "leave the whole row out where there is none")
        return None
    video = plain_name(cells[columns["video"]]) if "video" in columns else ""
    return _Row(place, video, float(moment), plain_name(label))


def _spellings(videos: Sequence[Video]) -> dict[str, str]:
    """Every way to write a video that means just one: its id, its file's name, with and without what is before it."""
    spellings: dict[str, set[str]] = {}
    for video in videos:
        suffix = video.path.suffix if video.path.is_file() else ""
        for name in (video.id, video.id + suffix, video.id.rpartition("/")[2], plain_name(video.path.name)):
            spellings.setdefault(name, set()).add(video.id)
    exact = {video.id: video.id for video in videos}
    return {name: next(iter(ids)) for name, ids in spellings.items() if len(ids) == 1} | exact


def _tell(problems: dict[str, Problem], what: str, path: Path, *detail: object) -> None:
    """Keep the first of a kind; a file that a script got wrong is wrong in every row."""
    place, expected, found, fix, severity = (*detail, "error")[:5]
    problems.setdefault(what, Problem(severity, what, path, place, expected, found, fix))  # type: ignore[arg-type]
