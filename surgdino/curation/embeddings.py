"""Embeddings of frames on disk: unit length, float16, mapped and read in blocks: memory does not grow with n."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from surgdino.array_files import map_array
from surgdino.errors import SurgdinoError
from surgdino.paths import atomic_write

BLOCK = 1 << 16  # rows that are in memory as float32 at a time


def write_unit(path: Path, blocks: Iterable[np.ndarray], n: int, width: int) -> np.ndarray:
    """Write rows of any length as unit vectors, float16 [n, width], and map the file.

    Args:
        blocks: float [b, width] each, n rows in all.

    Raises:
        SurgdinoError: a row is not finite or all zero; the disk is full.
    """
    header = {"descr": np.dtype(np.float16).str, "fortran_order": False, "shape": (n, width)}
    with atomic_write(path) as temporary, temporary.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        for block in blocks:
            stream.write(unit(block).astype(np.float16).data)
    return map_array(path)


def unit(rows: np.ndarray) -> np.ndarray:
    """float32 [n, D], each row brought to length 1.

    Raises:
        SurgdinoError: a row is not finite or all zero.
    """
    rows = np.asarray(rows, np.float32)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    if not np.isfinite(norms).all() or not norms.all():
        raise SurgdinoError(
            "features without a direction",
            expected="finite numbers, not all zero",
            found=f"{int((~np.isfinite(norms) | (norms == 0)).sum())} of {len(rows)} rows",
            fix="the weights may be damaged: check checkpoint=",
        )
    return rows / norms


def blocks_of(
    embeddings: np.ndarray, rows: np.ndarray | None = None, size: int = BLOCK
) -> Iterator[tuple[slice, np.ndarray]]:
    """(positions, float32 rows) block by block: of all rows, or of `rows` int64 [m] in their order."""
    count = len(embeddings) if rows is None else len(rows)
    for start in range(0, count, size):
        part = slice(start, min(start + size, count))
        yield part, at(embeddings, part if rows is None else rows[part])


def at(embeddings: np.ndarray, rows: np.ndarray | slice) -> np.ndarray:
    """float32 [m, D], length 1 again: rounded to float16 the same frame would have a cosine of 0.9997 with itself."""
    found = np.asarray(embeddings[rows], np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)
