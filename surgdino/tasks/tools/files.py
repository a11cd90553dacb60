"""Tools as files: a table with a row a frame and a column a tool, of 0 and 1 as Cholec80's, or of scores.

Cholec80's has tabs and the header `Frame`, then the tools' names; commas do as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from surgdino.csv_files import as_meant, harmless
from surgdino.datasets.class_names import class_finder, corrected
from surgdino.errors import SurgdinoError, nearest, shown
from surgdino.paths import file_of, write_text
from surgdino.tasks.scoring.video_files import table_rows, text_of

ENDINGS = ("", "-tool", "_pred")  # as Cholec80 names its tools, and others their predictions


@dataclass(frozen=True)
class ToolRows:
    """One video's table.

    Attributes:
        frames: int64 [n], ascending.
        classes: C names, in the order of the columns.
        values: float64 [n, C], finite.
    """

    frames: np.ndarray
    classes: tuple[str, ...]
    values: np.ndarray

    def in_order(self, classes: Sequence[str], path: Path) -> np.ndarray:
        """float64 [n, len(classes)], the columns of these classes, which the table may spell otherwise.

        Raises:
            SurgdinoError: it lacks one, or has one that is not among them.
        """
        find = class_finder(classes)
        places = {find(name): column for column, name in enumerate(self.classes)}
        unknown = [name for name in self.classes if find(name) is None]
        missing = [name for place, name in enumerate(classes) if place not in places]
        if unknown or missing or len(places) < len(self.classes):
            what = "other tools than are scored" if unknown or missing else "a tool twice"
            expected, found = (", ".join(map(shown, names)) for names in (classes, self.classes))
            fix = nearest(unknown[0], missing) if unknown and missing else "give classes= the names of all tools"
            raise SurgdinoError(what, file=path, place="row 1", expected=expected, found=found, fix=fix)
        return self.values[:, [places[place] for place in range(len(classes))]]


def write_presence(
    folder: Path, video: str, frames: np.ndarray, flags: np.ndarray, classes: Sequence[str], ending: str = "-tool.txt"
) -> Path:
    """Write `folder/<video>-tool.txt` in Cholec80's format.

    Args:
        frames: int [n], ascending frame numbers of the dataset.
        flags: bool [n, C].
    """
    names = "\t".join(harmless(shown(name)) for name in classes)
    rows = zip(np.asarray(frames).tolist(), np.asarray(flags).astype(int).tolist(), strict=True)
    text = "".join("\t".join(map(str, (frame, *row))) + "\n" for frame, row in rows)
    return write_text(file_of(folder, video, ending), f"Frame\t{names}\n{text}")


def read_tool_table(path: Path, *, flags: bool) -> ToolRows:
    """One file.

    Args:
        flags: whether it has to be of 0 and 1.

    Raises:
        SurgdinoError: no header that begins with `Frame`, a row of another width, frames that are none, come twice or
            do not ascend, or a cell that is no score.
    """
    lines = text_of(path)
    separator = "\t" if "\t" in lines[0] else ","
    header = [cell.strip() for cell in lines[0].split(separator)]
    if header[0].casefold() != "frame" or len(header) < 2 or "" in header:
        expected = "Frame, then the name of each tool; tabs or commas between them"
        raise SurgdinoError("wrong header", file=path, place="row 1", expected=expected, found=repr(lines[0][:60]))
    frames: list[int] = []
    values = np.empty((len(lines) - 1, len(header) - 1))
    for place, frame, cells in table_rows(path, lines, separator):
        for column, cell in enumerate(cells):
            values[len(frames), column] = _value(cell.strip(), flags, path, f"{place}, {header[1 + column]}")
        frames.append(frame)
    return ToolRows(np.array(frames, np.int64), tuple(corrected(as_meant(name)) for name in header[1:]), values)


def _value(cell: str, flags: bool, path: Path, place: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if flags and value not in (0, 1):
        raise SurgdinoError("neither 0 nor 1", file=path, place=place, expected="0 or 1", found=repr(cell[:40]))
    if not math.isfinite(value):
        raise SurgdinoError("not a score", file=path, place=place, expected="a finite number", found=repr(cell[:40]))
    return value
