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
        cells: n lists of the other columns' texts.
        problems: what is wrong with it; where there are errors, `frames` and `cells` end before the first of them.
    """

    path: Path
    frames: np.ndarray
    cells: list[list[str]]
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
    lines = text.rstrip().splitlines()
    if not lines:
        return _refused(path, "the file is empty", expected=_shown(header), fix="copy it again from the release")
    if [cell.strip() for cell in lines[0].split("\t")] != list(header):
        fix = "copy it again from the release; other files number or name things differently"
        return _refused(path, "wrong header", place="row 1", expected=_shown(header), found=lines[0][:80], fix=fix)
    return _rows(path, [line.split("\t") for line in lines[1:]], len(header), step)


def _rows(path: Path, rows: list[list[str]], width: int, step: int) -> Table:
    problems: list[Problem] = []
    if not rows:
        return _refused(path, "no rows under the header", expected="one row a labelled frame")
    wrong = next((i for i, row in enumerate(rows) if len(row) != width), None)
    if wrong is not None:
        problems.append(
            Problem(
                "error",
                "wrong number of columns",
                path,
                f"row {wrong + _FIRST_ROW}",
                expected=f"{width}, separated by tabs",
                found=len(rows[wrong]),
            )
        )
        rows = rows[:wrong]
    frames, unreadable = _whole_numbers([row[0] for row in rows])
    if unreadable is not None:
        place, found = f"row {unreadable + _FIRST_ROW}", repr(rows[unreadable][0])
        problems.append(Problem("error", "no frame number", path, place, expected="a whole number", found=found))
    problems += _out_of_step(path, frames, step)
    kept = _in_step(frames, step)
    return Table(path, frames[:kept], [row[1:] for row in rows[:kept]], tuple(problems))


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
