"""Reading tab-separated label files: 100,000 rows in a fraction of a second, faults told by row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from surgdino.datasets.manifest import Problem
from surgdino.errors import from_os_error

_FIRST_ROW = 2  # as an editor counts lines: 1 is the header


@dataclass(frozen=True)
class Table:
    """A label file's rows.

    Attributes:
        frames: int64 [n], the first column.
        columns: the texts of the other columns, n each.
        problems: what is wrong with it; where there are errors, the rows end before the first of them.
    """

    path: Path
    frames: np.ndarray
    columns: list[list[str]]
    problems: tuple[Problem, ...] = ()

    def row(self, position: int) -> str:
        """The place of a row in the file, as an editor shows it."""
        return f"row {position + _FIRST_ROW}"


def read_table(path: Path, header: Sequence[str], step: int) -> Table:
    """Read a table whose first column counts frames 0, step, 2 step, ... .

    Bears Windows line ends, a byte order mark and empty lines at the end.

    Args:
        path: the file.
        header: names of its columns; it must open with exactly these.
        step: frames from one row to the next.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        return _refused(
            path, "not a text file", expected="tab-separated UTF-8 text", fix="copy it again from the release"
        )
    except OSError as error:
        told = from_os_error(error, path)
        return _refused(path, told.what, found=told.found, fix=told.fix)
    first, _, body = text.replace("\r\n", "\n").replace("\r", "\n").rstrip().partition("\n")
    if not first:
        return _refused(path, "the file is empty", expected=_shown(header), fix="copy it again from the release")
    if [cell.strip() for cell in first.split("\t")] != list(header):
        fix = "copy it again from the release; other files number or name things differently"
        return _refused(path, "wrong header", place="row 1", expected=_shown(header), found=first[:80], fix=fix)
    if not body:
        return _refused(path, "no rows under the header", expected="one row a labelled frame")
    return _rows(path, body, len(header), step)


def _rows(path: Path, body: str, width: int, step: int) -> Table:
    columns, problems = _columns(path, body, width)
    frames, unreadable = _whole_numbers(columns[0])
    if unreadable is not None:
        place, found = f"row {unreadable + _FIRST_ROW}", repr(columns[0][unreadable])
        problems.append(Problem("error", "no frame number", path, place, expected="a whole number", found=found))
    problems += _out_of_step(path, frames, step)
    kept = _in_step(frames, step)
    return Table(path, frames[:kept], [column[:kept] for column in columns[1:]], tuple(problems))


def _columns(path: Path, body: str, width: int) -> tuple[list[list[str]], list[Problem]]:
    """The cells by column, down to the first row that has more or fewer than `width` of them.

    One split of the whole text and a look at its separators take a fifth of the time of splitting row by row.
    """
    marks = np.frombuffer(f"{body}\n".encode(), np.uint8)
    marks = marks[(marks == ord("\t")) | (marks == ord("\n"))]
    widths = np.diff(np.flatnonzero(marks == ord("\n")), prepend=-1)
    off = np.flatnonzero(widths != width)
    rows = int(off[0]) if len(off) else len(widths)
    cells = body.replace("\n", "\t").split("\t")
    columns = [cells[column : rows * width : width] for column in range(width)]
    if not len(off):
        return columns, []
    message, place, expected = "wrong number of columns", f"row {rows + _FIRST_ROW}", f"{width}, separated by tabs"
    return columns, [Problem("error", message, path, place, expected, int(widths[rows]))]


def _whole_numbers(cells: list[str]) -> tuple[np.ndarray, int | None]:
    """The cells as int64, and the position of the first that is none."""
    try:
        return np.fromiter(map(int, cells), np.int64, len(cells)), None
    except (ValueError, OverflowError):
        good = next(i for i, cell in enumerate(cells) if not (cell.strip().isdecimal() and len(cell) < 16))
        return np.array([int(cell) for cell in cells[:good]], np.int64), good


def _in_step(frames: np.ndarray, step: int) -> int:
    """How many rows from the top count 0, step, 2 step, ... ."""
    off = np.flatnonzero(frames != step * np.arange(len(frames)))
    return int(off[0]) if len(off) else len(frames)


def _out_of_step(path: Path, frames: np.ndarray, step: int) -> list[Problem]:
    kept = _in_step(frames, step)
    if kept == len(frames):
        return []
    found = int(frames[kept])
    if kept == 0 and found == 1:
        message, fix = "frames are counted from 1", "count them from 0, as the release does: labels shift otherwise"
    elif kept == 1 and found == 1 and step > 1:
        message = f"frames are counted in rows, not in steps of {step}"
        fix = f"number every row by its frame: 0, {step}, {2 * step}, ..."
    else:
        message, fix = "the frame numbers do not go on evenly", "copy the file again from the release"
    return [
        Problem(
            "error", message, path, f"row {kept + _FIRST_ROW}", expected=f"frame {kept * step}", found=found, fix=fix
        )
    ]


def _refused(path: Path, message: str, **detail: object) -> Table:
    return Table(path, np.empty(0, np.int64), [], (Problem("error", message, path, **detail),))  # type: ignore[arg-type]


def _shown(header: Sequence[str]) -> str:
    return "the header " + " ⇥ ".join(header)
