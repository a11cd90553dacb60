"""Triplet scores as CSV: `frame`, a column a triplet named by its id, and a model's own component heads if it has any.

frame,0,1,...,99[,I0,...,I5,V0,...,V9,T0,...,T14]
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from surgdino.errors import SurgdinoError
from surgdino.paths import file_of, write_text
from surgdino.tasks.scoring.video_files import table_rows, text_of

TRIPLETS = 100
TOP = "-top"  # ends the name of the list of the highest, which stands beside the scores
_HEAD = re.compile(r"(I|V|T|IV|IT)(\d+)")


@dataclass(frozen=True)
class TripletRows:
    """One video's scores.

    Attributes:
        frames: int64 [n], ascending.
        scores: float64 [n, triplets], finite.
        heads: component (I, V, T, IV, IT) -> float64 [n, classes of the component].
    """

    frames: np.ndarray
    scores: np.ndarray
    heads: Mapping[str, np.ndarray] = field(default_factory=dict)


def write_triplets(
    folder: Path, video: str, frames: np.ndarray, scores: np.ndarray, heads: Mapping[str, np.ndarray] | None = None
) -> Path:
    """Write `folder/<video>.csv`; reading it back gives the same float32 (or float64) numbers.

    Args:
        frames: int [n], ascending frame numbers of the dataset.
        scores: float [n, triplets].
        heads: component -> float [n, classes of the component].
    """
    columns = {"": np.asarray(scores)} | {component: np.asarray(values) for component, values in (heads or {}).items()}
    names = [f"{component}{number}" for component, values in columns.items() for number in range(values.shape[1])]
    table = np.concatenate(list(columns.values()), axis=1)
    form = "%.9g" if table.dtype in (np.float32, np.float16) else "%.17g"  # the digits that lose nothing
    line = ",".join([form] * table.shape[1])
    rows = zip(np.asarray(frames).tolist(), table.tolist(), strict=True)
    text = "".join(f"{frame},{line % tuple(values)}\n" for frame, values in rows)
    return write_text(file_of(folder, video, ".csv"), f"frame,{','.join(names)}\n{text}")


def read_triplets(path: Path, triplets: int = TRIPLETS) -> TripletRows:
    """The scores in one file."""
    lines = text_of(path)
    header = [cell.strip() for cell in lines[0].split(",")]
    names = _head_columns(path, header, triplets)
    frames: list[int] = []
    table = np.empty((len(lines) - 1, len(header) - 1))
    for place, frame, cells in table_rows(path, lines, ","):
        table[len(frames)] = [
            _score(cell, path, f"{place}, column {column}") for cell, column in zip(cells, header[1:], strict=True)
        ]
        frames.append(frame)
    heads = {component: table[:, columns] for component, columns in names.items()}
    return TripletRows(np.array(frames, dtype=np.int64), table[:, :triplets], heads)


def _head_columns(path: Path, header: list[str], triplets: int) -> dict[str, list[int]]:
    """Component -> the columns of its head, after a check of the header."""
    expected = ["frame", *map(str, range(triplets))]
    fix = f"the first row is frame,0,1,...,{triplets - 1}"
    for place, (name, found) in enumerate(zip(expected, header, strict=False), start=1):
        if name != found:
            place_of = f"row 1, column {place}"
            if header[1:] == [str(number) for number in range(1, triplets + 1)]:
                fix = f"the ids count from 1: {fix}"
            raise SurgdinoError("wrong header", file=path, place=place_of, expected=name, found=repr(found), fix=fix)
    if len(header) < len(expected):
        counts = {"expected": len(expected), "found": len(header)}
        raise SurgdinoError("wrong number of columns", file=path, place="row 1", **counts, fix=fix)
    columns: dict[str, list[int]] = {}
    for place, name in enumerate(header[len(expected) :]):
        found_head = _HEAD.fullmatch(name)
        component = found_head[1] if found_head else ""
        if not found_head or int(found_head[2]) != len(columns.get(component, ())):
            raise SurgdinoError(
                "wrong header",
                file=path,
                place=f"row 1, column {len(expected) + place + 1}",
                expected="nothing after the triplets, or own heads as I0, I1, ..., V0, ..., T0, ...",
                found=repr(name),
            )
        columns.setdefault(component, []).append(triplets + place)
    return columns


def _score(cell: str, path: Path, place: str) -> float:
    with suppress(ValueError):
        if math.isfinite(value := float(cell)):
            return value
    raise SurgdinoError("not a score", file=path, place=place, expected="a finite number", found=repr(cell.strip()))
