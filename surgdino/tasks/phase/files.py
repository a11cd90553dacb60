"""Phases as the M2CAI text files: a header `Frame`, `Phase`, then a tab-separated row a frame, with name or id."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from surgdino.errors import SurgdinoError, nearest
from surgdino.paths import atomic_write
from surgdino.tasks.scoring.video_files import frame_number, text_of

HEADER = ("Frame", "Phase")
ENDINGS = ("", "-phase", "_pred")  # as Cholec80 and the M2CAI evaluation name them
_FIRST_ROW = 2  # as an editor counts lines; 1 is the header


def write_phase(folder: Path, video: str, frames: np.ndarray, phases: np.ndarray, classes: Sequence[str]) -> Path:
    """Write `folder/<video>.txt` with the phases' names, which cross borders where ids do not.

    Args:
        frames: int [n], ascending frame numbers of the dataset.
        phases: int [n], ids into `classes`.

    Raises:
        SurgdinoError: the file system refused.
    """
    rows = zip(np.asarray(frames).tolist(), np.asarray(phases).tolist(), strict=True)
    text = "".join(f"{frame}\t{classes[phase]}\n" for frame, phase in rows)
    path = folder / f"{video}.txt"
    with atomic_write(path) as temporary:
        temporary.write_text("\t".join(HEADER) + f"\n{text}", encoding="utf-8")
    return path


def read_phase(path: Path, classes: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Frames int64 [n] and phase ids int64 [n] of one file.

    Args:
        classes: names in the order of their ids. A file holds names or ids, not both.

    Raises:
        SurgdinoError: another header, a row of another width, frames that are none, come twice or do not ascend, a
            phase that `classes` lacks.
    """
    frames, cells = phase_cells(path)
    return frames, phase_ids(path, cells, classes)


def phase_cells(path: Path) -> tuple[np.ndarray, list[str]]:
    """Frames int64 [n] and what stands beside them, as text; errors as `read_phase`."""
    lines = text_of(path)
    expected = "the header Frame ⇥ Phase"
    if [cell.strip() for cell in lines[0].split("\t")] != list(HEADER):
        raise SurgdinoError("wrong header", file=path, place="row 1", expected=expected, found=repr(lines[0][:60]))
    if len(lines) == 1:
        raise SurgdinoError("no rows under the header", file=path, expected="one row a frame")
    frames: list[int] = []
    names: list[str] = []
    for row, line in enumerate(lines[1:], start=_FIRST_ROW):
        cells = line.split("\t")
        if len(cells) != len(HEADER):
            raise SurgdinoError(
                "wrong number of columns",
                file=path,
                place=f"row {row}",
                expected="2, separated by a tab",
                found=len(cells),
            )
        frames.append(frame_number(cells[0], frames[-1] if frames else None, path, row))
        names.append(cells[1].strip())
    return np.array(frames, dtype=np.int64), names


def phase_ids(path: Path, cells: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    """Class ids int64 [n] of the names, or of the ids, in a file; its first row decides which of the two it holds."""
    known = {name: place for place, name in enumerate(classes)}
    if cells[0] not in known and cells[0].isdecimal():
        known = {str(place): place for place in range(len(classes))}
    expected = f"0 to {len(classes) - 1}" if "0" in known else "a phase of the class list"
    for row, cell in enumerate(cells, start=_FIRST_ROW):
        if cell not in known:
            raise SurgdinoError(
                f"unknown phase {cell!r}",
                file=path,
                place=f"row {row}",
                expected=expected,
                fix=nearest(cell, known),
            )
    return np.array([known[cell] for cell in cells], dtype=np.int64)
