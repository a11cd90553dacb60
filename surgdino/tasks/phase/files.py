"""Phases as the M2CAI text files: a header `Frame`, `Phase`, then a tab-separated row a frame, with name or id.

Steps are written likewise, with the header `Frame`, `Step`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from surgdino.csv_files import as_meant, harmless
from surgdino.datasets.class_names import class_finder, corrected, from_one
from surgdino.errors import SurgdinoError, nearest, shown
from surgdino.paths import file_of, write_text
from surgdino.tasks.scoring.video_files import FIRST_ROW, table_rows, text_of

HEADERS = {"phase": ("Frame", "Phase"), "step": ("Frame", "Step")}
ENDINGS = ("", "-phase", "_pred")  # as Cholec80 and the M2CAI evaluation name them


def write_phase(
    folder: Path, video: str, frames: np.ndarray, phases: np.ndarray, classes: Sequence[str], labels: str = "phase"
) -> Path:
    """Write `folder/<video>.txt` with the phases' names, which cross borders where ids do not.

    Args:
        frames: int [n], ascending frame numbers of the dataset.
        phases: int [n], ids into `classes`.
        labels: what they are, a key of HEADERS.

    Raises:
        SurgdinoError: the file system refused.
    """
    rows = zip(np.asarray(frames).tolist(), np.asarray(phases).tolist(), strict=True)
    text = "".join(f"{frame}\t{harmless(shown(classes[phase]))}\n" for frame, phase in rows)
    return write_text(file_of(folder, video, ".txt"), "\t".join(HEADERS[labels]) + f"\n{text}")


def read_phase(path: Path, classes: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Frames int64 [n] and phase ids int64 [n] of one file.

    Args:
        classes: names in the order of their ids. A file holds names or ids; its first row decides which.

    Raises:
        SurgdinoError: another header, a row of another width, frames that are none, come twice or do not ascend, a
            phase that `classes` lacks.
    """
    frames, cells = phase_cells(path)
    find, valid, expected = class_finder(classes), classes, "a phase of the class list"
    if find(cells[0]) is None and cells[0].isdecimal():
        valid = [str(place) for place in range(len(classes))]
        find, expected = class_finder(valid), f"0 to {len(classes) - 1}"
    known = {cell: find(cell) for cell in set(cells)}
    for row, cell in enumerate(cells, start=FIRST_ROW):
        if known[cell] is None:
            what, place, fix = f"unknown phase {cell!r}", f"row {row}", nearest(cell, valid)
            if from_one(known, len(classes)):
                fix = "the ids seem to count from 1: count them from 0, or write names"
            raise SurgdinoError(what, file=path, place=place, expected=expected, fix=fix)
    return frames, np.array([known[cell] for cell in cells], dtype=np.int64)


def phase_cells(path: Path) -> tuple[np.ndarray, list[str]]:
    """Frames int64 [n] and what stands beside them, as text; errors as `read_phase`."""
    lines = text_of(path)
    expected = "the header Frame ⇥ Phase (or Step)"
    if tuple(cell.strip() for cell in lines[0].split("\t")) not in HEADERS.values():
        raise SurgdinoError("wrong header", file=path, place="row 1", expected=expected, found=repr(lines[0][:60]))
    rows = [(frame, corrected(as_meant(name.strip()))) for _, frame, [name] in table_rows(path, lines, "\t")]
    return np.array([frame for frame, _ in rows], dtype=np.int64), [name for _, name in rows]
