"""The index of a shard: what `index.json` holds, and everything that is checked before it is believed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from surgdino.datasets.files import MOST_PIXELS
from surgdino.errors import SurgdinoError
from surgdino.records import checked, parse_json

FORMAT = 1
AGAIN = "it will be built anew"
COLUMNS: dict[str, type[np.integer] | type[np.floating]] = {
    "number": np.int64,
    "time": np.float64,
    "flags": np.uint8,
    "cx": np.float32,
    "cy": np.float32,
    "radius": np.float32,
    "offset": np.int64,
    "size": np.int32,
}
Pixels = Annotated[int, Field(ge=1, le=65_535)]


@dataclass(frozen=True)
class _ContentRecord:
    """The content that a video's stored frames share."""

    kind: Literal["disc", "rectangle", "full"]
    box: tuple[int, int, int, int]
    cx: float | None
    cy: float | None
    radius: float | None
    source_box: tuple[int, int, int, int]
    source_size: tuple[Pixels, Pixels]


@dataclass(frozen=True)
class _Entry:
    """Where something lies in the archive, and its checksum."""

    offset: Annotated[int, Field(ge=0)]
    size: Annotated[int, Field(ge=0, le=1 << 30)]
    crc32: Annotated[int, Field(ge=0, lt=1 << 32)]


@dataclass(frozen=True)
class _Index:
    """`index.json` but for the columns of `frames`."""

    format: int
    video: str
    source: dict[str, str | int]
    source_fps: float | None
    settings: dict[str, str | int | float | bool]
    width: Pixels
    height: Pixels
    content: _ContentRecord
    missing: dict[str, Annotated[int, Field(ge=0)]]
    prints: _Entry | None = None  # shards of before December 2026 have none


def parse_index(text: bytes, path: Path, end: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The header and the columns [n] of an index; `path` is where it was found, for messages.

    Args:
        end: the pictures lie before this byte.

    Raises:
        SurgdinoError: not JSON, of another format, or something in it cannot be right.
    """
    header = parse_json(text, path, AGAIN)
    rows: Any = header.pop("frames", None) if isinstance(header, dict) else None
    checked(_Index, header, path, AGAIN, more=True)
    if header["format"] != FORMAT:
        raise SurgdinoError("the shard has another format", file=path, expected=FORMAT, found=header["format"])
    try:
        columns = {name: _column(rows[name], kind) for name, kind in COLUMNS.items()}
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise SurgdinoError(
            "the index of the shard is wrong", file=path, place="frames", found=error, fix=AGAIN
        ) from None
    if wrong := _wrong(header, columns, end):
        raise SurgdinoError("the index of the shard is wrong", file=path, place=wrong, fix=AGAIN)
    return header, columns


def _column(values: list, kind: type[np.integer] | type[np.floating]) -> np.ndarray:
    column = np.array(values, None if issubclass(kind, np.integer) else kind)
    if column.ndim != 1 or not np.can_cast(column.dtype, np.int64 if issubclass(kind, np.integer) else kind):
        raise ValueError(f"no column of {kind.__name__}")
    if issubclass(kind, np.integer) and not (column <= np.iinfo(kind).max).all():
        raise ValueError("a number that is too large")
    return column.astype(kind)


def _wrong(header: Mapping[str, Any], columns: Mapping[str, np.ndarray], end: int) -> str | None:
    """What cannot be right of a shard whose pictures lie before `end`."""
    width, height, content = header["width"], header["height"], header["content"]
    if width * height > MOST_PIXELS:
        return f"{width}x{height} pixels"
    x0, y0, x1, y1 = content["box"]
    discs = np.array([[content[name], *columns[name]] for name in ("cx", "cy", "radius")], float)
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        return "content.box"
    if content["kind"] == "disc" and not (np.isfinite(discs).all() and (discs[2] > 0).all()):
        return "content.radius"
    number, time, offset, size = (columns[name] for name in ("number", "time", "offset", "size"))
    if len({len(column) for column in columns.values()}) > 1 or not len(number):
        return "frames"
    if number[0] < 0 or not (np.diff(number) > 0).all() or not (time >= 0).all() or not (np.diff(time) >= 0).all():
        return "frames.number or frames.time"
    # As far as a size reaches, an offset before `end` cannot overflow.
    if offset[0] < 0 or not (offset < end).all() or not (size > 0).all():
        return "frames.offset or frames.size"
    ends = offset + size
    return None if (ends[:-1] <= offset[1:]).all() and ends[-1] <= end else "frames.offset"
