"""Label files as tables with a row a second or frame, as the card's `workflow` says: ids of classes, or 1 and 0.

Commas, semicolons, tabs, bars or spaces separate; the text may be UTF-8 with or without its mark, UTF-16 or
Windows-1252, with line ends of any system. Rows may come in any order, and a header is known by its having no number.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from surgdino.csv_files import csv_rows
from surgdino.datasets.class_names import class_finder, from_one
from surgdino.datasets.files import letters, read_text
from surgdino.datasets.manifest import FrameLabels, Problem, SecondLabels
from surgdino.datasets.workflow import SECONDS, LabelFiles
from surgdino.errors import SurgdinoError, nearest

_MOST = 1e8  # frames or milliseconds: 46 days at 25 frames a second
_COPY = "copy the file again from the release"


class LabelRows:
    """One file's rows, to be read as labels of each of its kinds.

    Raises:
        SurgdinoError: no table.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        text = read_text(path, spreadsheet=True)
        first = next((line for line in text.split("\n") if line.strip()), "")
        separator = max(";\t,|", key=first.count)
        if first.count(separator):
            lines = csv_rows(text, path, separator)
        else:
            lines = [line.split() for line in text.split("\n")]
        filled = [
            (number, cells) for number, cells in enumerate(lines, start=1) if any(cells) and "".join(cells).strip()
        ]
        if not filled:
            raise SurgdinoError("the file is empty", file=path, expected="rows of labels", fix=_COPY)
        self.numbers, self.rows = [number for number, _ in filled], [cells for _, cells in filled]

    def read(
        self, files: LabelFiles, classes: Sequence[str]
    ) -> tuple[FrameLabels | SecondLabels | None, list[Problem]]:
        """The labels of one kind, and the first problem of each sort; rows with a fault are left out.

        Raises:
            SurgdinoError: a column is missing.
        """
        return _Reading(self, files, classes).labels()


class _Reading:
    """One kind of labels from the rows; `usable` are those without a fault so far."""

    def __init__(self, table: LabelRows, files: LabelFiles, classes: Sequence[str]) -> None:
        self.path, self.files, self.classes = table.path, files, classes
        self.problems: dict[str, Problem] = {}
        when = files.when if isinstance(files.when, int) else self._named(files.when, table.rows[0])
        header = not _is_number(table.rows[0][when]) if when < len(table.rows[0]) else False
        names = table.rows[0] if header else []
        self.columns = [c if isinstance(c, int) else self._named(c, names) for c in files.columns]
        self.numbers, rows = table.numbers[header:], table.rows[header:]
        if not rows:
            what, expected = "no rows under the header", f"one a labelled {files.unit}"
            raise SurgdinoError(what, file=self.path, expected=expected, fix=_COPY)
        width = max(when, *self.columns) + 1
        wide = [len(row) >= width for row in rows]
        if not all(wide):
            place = wide.index(False)
            self.tell("too few columns", self.numbers[place], f"{width} or more", len(rows[place]))
            self.numbers = [number for number, good in zip(self.numbers, wide, strict=True) if good]
            rows = [row for row, good in zip(rows, wide, strict=True) if good]
        self.rows, self.usable = rows, np.ones(len(rows), bool)
        self.times = self._checked(when, "a number from 0", lambda values: (values >= 0) & (values <= _MOST))

    def tell(self, what: str, row: int, expected: object, found: object, fix: str = _COPY, error: bool = True) -> None:
        severity = "error" if error else "warning"
        self.problems.setdefault(
            what,
            Problem(severity, what, self.path, f"row {row}", expected, found, fix),  # type: ignore[arg-type]
        )

    def labels(self) -> tuple[FrameLabels | SecondLabels | None, list[Problem]]:
        """Sorted by time, each time once."""
        files = self.files
        array = self._flags() if files.flags or files.kind in ("tools", "action") else self._ids()
        order = np.argsort(self.times, kind="stable")
        order = order[self.usable[order]]
        order = order[~self._repeated(order, array)]
        every = np.unique(self.times[self.times >= 0])
        if not len(order):
            return None, list(self.problems.values())
        self._tell_gaps(every)
        times = self.times[order] - self._first(every)
        labelled = np.flatnonzero(self.labelled[order])
        times, array = times[labelled], array[order[labelled]]
        if not len(times):
            return None, list(self.problems.values())
        if files.unit == "frame":
            return FrameLabels(times.astype(np.int64), array), list(self.problems.values())
        return SecondLabels(times * SECONDS[files.unit], array), list(self.problems.values())

    def _named(self, name: str, header: Sequence[str]) -> int:
        places = [place for place, cell in enumerate(header) if letters(cell) == letters(name)]
        if not places:
            found, what = ", ".join(header)[:80] or "no header", f"no column {name}"
            raise SurgdinoError(what, file=self.path, place="row 1", expected=f"a header with {name}", found=found)
        return places[0]

    def _checked(self, column: int, expected: str, good) -> np.ndarray:  # type: ignore[no-untyped-def]
        """The numbers of a column, float64 [n]; rows without one, or of one that is not `good`, are told."""
        cells = [row[column] for row in self.rows]
        try:
            values = np.array(cells, np.float64)
        except ValueError:
            values = np.array([float(cell) if _is_number(cell) else np.nan for cell in cells])
        with np.errstate(invalid="ignore"):
            bad = ~(np.isfinite(values) & (values == np.floor(values)) & good(values))
        if bad.any():
            place = int(bad.argmax())
            self.tell(f"not {expected}", self.numbers[place], expected, repr(cells[place]))
            self.usable &= ~bad
            values = np.where(bad, -1, values)
        return values

    def _ids(self) -> np.ndarray:
        """Class ids int16 [n] of one column that holds ids or names; `labelled` are the rows that have one."""
        files, column = self.files, self.columns[0]
        cells = [row[column].strip() for row in self.rows]
        if any(map(_is_number, cells)):
            values = self._checked(column, "the id of a class", lambda found: np.abs(found) < 1e6)
            self.labelled = ~np.isin(values, files.unlabelled)
            ids = values - files.first_id
        else:
            find = class_finder(self.classes)
            known = {cell: -1 if (place := find(cell)) is None else place for cell in set(cells)}
            ids, self.labelled = np.array([known[cell] for cell in cells], np.float64), np.ones(len(cells), bool)
        strange = self.usable & self.labelled & ~((ids >= 0) & (ids < len(self.classes)))
        if strange.any():
            place, last = int(strange.argmax()), files.first_id + len(self.classes) - 1
            expected, fix = f"{files.first_id} to {last}, or a name", nearest(cells[place], self.classes)
            if _is_number(cells[place]):
                found = {int(each) for each in ids[self.usable & self.labelled]}
                fix = "the ids seem to count from 1" if from_one(found, len(self.classes)) else _COPY
            self.tell(f"a {files.kind} of no class", self.numbers[place], expected, repr(cells[place]), fix)
            self.usable &= ~strange
        return np.where(strange, 0, ids).astype(np.int16)

    def _flags(self) -> np.ndarray:
        """0/1 uint8 [n, classes], from columns of flags or of ids."""
        files = self.files
        self.labelled = np.ones(len(self.rows), bool)
        present = np.zeros((len(self.rows), len(self.classes)), np.uint8)
        for place, column in enumerate(self.columns):
            if files.flags:
                present[:, place] = self._checked(column, "0 or 1", lambda found: (found == 0) | (found == 1))
                continue
            last = files.first_id + len(self.classes) - 1
            special = (*files.none, *files.unlabelled)
            expected = f"an id from {files.first_id} to {last}" + (
                f", or {', '.join(map(str, special))}" if special else ""
            )
            values = self._checked(
                column,
                expected,
                lambda found, last=last, special=special: (
                    ((found >= files.first_id) & (found <= last)) | np.isin(found, special)
                ),
            )
            self.labelled &= ~np.isin(values, files.unlabelled)
            there = np.flatnonzero(self.usable & ~np.isin(values, special))
            present[there, values[there].astype(np.int64) - files.first_id] = 1
        return present

    def _repeated(self, order: np.ndarray, array: np.ndarray) -> np.ndarray:
        """Which rows repeat the time of the one before, bool [n]; told, as an error where the label is another."""
        again = np.diff(self.times[order], prepend=-2) == 0
        for place in np.flatnonzero(again)[:1000]:
            row, before = order[place], order[place - 1]
            same = (array[row] == array[before]).all() and self.labelled[row] == self.labelled[before]
            what = f"a {self.files.unit} twice" if same else f"two labels for one {self.files.unit}"
            found = f"row {self.numbers[before]} too"
            self.tell(what, self.numbers[row], "each once", found, "keep one of the rows", error=not same)
        return again

    def _first(self, times: np.ndarray) -> int:
        """What the first frame or second is called in this file."""
        first, unit = self.files.first, self.files.unit
        if first == 0 and times[0] == 1:
            fix = "count them from 0, as the release does: labels shift otherwise"
            self.tell(f"{unit}s are counted from 1", self._row_of(times[0]), f"{unit} 0", 1, fix)
        if first == 1 and times[0] == 0:
            what, fix = f"{unit}s are counted from 0", "nothing: they are read as they are"
            self.tell(what, self._row_of(times[0]), f"{unit} 1, as the card says", 0, fix, error=False)
            return 0
        return first

    def _tell_gaps(self, times: np.ndarray) -> None:
        steps = np.diff(times)
        gaps = np.flatnonzero(steps > 1.5 * np.median(steps)) if len(steps) else steps
        if len(gaps):
            step = np.median(steps)
            rows = int(np.round(steps[gaps] / step).sum()) - len(gaps)
            what, before, after = f"{rows} row{'s are' if rows > 1 else ' is'} missing", *times[gaps[0] : gaps[0] + 2]
            expected, fix = f"a row every {step:g} {self.files.unit}s", "fine if nothing is labelled there"
            self.tell(what, self._row_of(before), expected, f"{before:g}, then {after:g}", fix, error=False)

    def _row_of(self, time: float) -> int:
        return self.numbers[int((self.times == time).argmax())]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
