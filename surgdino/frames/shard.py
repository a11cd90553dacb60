"""One video's shard: an uncompressed ZIP of JPEG frames that any tool opens, with an index to read them by position.

`frames/00000025.jpg` is frame 25 of the source; `prints.npy` holds the prints (`surgdino.frames.prints`) of a frame a
second; `index.json`, the last entry, describes all frames. The archive's comment, the last bytes of the file, gives the
position of the index: a truncated shard is recognised by its tail.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import struct
import time
import weakref
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from surgdino.errors import SurgdinoError, from_os_error
from surgdino.frames.content import Content, content_mask
from surgdino.frames.shard_index import AGAIN, COLUMNS, FORMAT, parse_index
from surgdino.paths import atomic_write, regular

FLAGS = ("black", "out_of_body")

_COMMENT = "surgdino index at {offset:020d} size {size:012d} crc32 {crc:08x}"
_PATTERN = re.compile(rb"surgdino index at (\d{20}) size (\d{12}) crc32 ([0-9a-f]{8})$")
_COMMENT_SIZE = len(_COMMENT.format(offset=0, size=0, crc=0))
_LEFTOVER_SECONDS = 3600
# ZIP keeps a time stamp for every entry; a fixed one makes equal input give equal bytes.
_EPOCH = (1980, 1, 1, 0, 0, 0)
_MOST_INDEX = 1 << 30  # bytes; an index has about 60 a frame
# The archive has an entry's CRC-32 in these bytes of its 30 before the name, which comes before the picture.
_CRC, _BEFORE_NAME = slice(14, 18), 30


@dataclass(frozen=True)
class Shard:
    """A shard's index.

    Attributes:
        path: the ZIP file.
        header: `format`, `video`, `source`, `settings`, `height`, `width` (stored pixels), `content`, `missing`.
        columns: one array [n] each: `number`, `time` (s), `flags` (bits in the order of FLAGS), `cx`, `cy`, `radius`
            (stored pixels; NaN unless a disc), `offset` and `size` (bytes, of the JPEG).
        crc: of the index; it changes when another process replaces the shard.
    """

    path: Path
    header: Mapping[str, Any]
    columns: Mapping[str, np.ndarray]
    crc: int

    def __len__(self) -> int:
        return len(self.columns["number"])

    def content(self, row: int) -> Content:
        """The content of one stored frame: a disc is stored frame by frame, bars once a video."""
        height, width, common = self.header["height"], self.header["width"], self.header["content"]
        if common["kind"] == "disc":
            cx, cy, radius = (float(self.columns[name][row]) for name in ("cx", "cy", "radius"))
            return Content.disc(cx, cy, radius, height, width)
        return Content(common["kind"], tuple(common["box"]))

    def describe(self) -> dict[str, Any]:
        """The video's content: kind, share of the stored frame, stored and source size (width, height)."""
        common = self.header["content"]
        height, width = self.header["height"], self.header["width"]
        mean = Content(common["kind"], tuple(common["box"]), common["cx"], common["cy"], common["radius"])
        return {
            "kind": common["kind"],
            "share": float(content_mask(mean, height, width).mean()),
            "stored_size": (width, height),
            "source_size": tuple(common["source_size"]),
        }

    def damaged(self, place: str | None = None) -> SurgdinoError:
        """The error for a shard whose bytes have changed."""
        return SurgdinoError(
            "the shard of the frame store is damaged", file=self.path, place=place, fix="delete it and run again"
        )


class ShardReader:
    """An open shard, read by position; one a process."""

    def __init__(self, shard: Shard) -> None:
        """Raises:
        SurgdinoError: the shard is gone, or another process put a different one in its place.
        """
        self._shard = shard
        try:
            self._descriptor = os.open(regular(shard.path), os.O_RDONLY)
        except OSError as error:
            raise from_os_error(error, shard.path) from error
        weakref.finalize(self, os.close, self._descriptor)
        size = os.fstat(self._descriptor).st_size
        found = _PATTERN.search(os.pread(self._descriptor, _COMMENT_SIZE, max(0, size - _COMMENT_SIZE)))
        if not found or int(found[3], 16) != shard.crc:
            raise SurgdinoError(
                "the shard of the frame store was replaced while it was in use", file=shard.path, fix="run it again"
            )

    def jpeg(self, row: int) -> bytes:
        """The encoded frame in that row of the index.

        Raises:
            SurgdinoError: its bytes have changed, by the archive's checksum, or it is of another size than its shard.
        """
        shard, header = self._shard, self._shard.header
        number, size = int(shard.columns["number"][row]), int(shard.columns["size"][row])
        before = _BEFORE_NAME + len(_name(number))
        entry = os.pread(self._descriptor, before + size, max(0, int(shard.columns["offset"][row]) - before))
        jpeg = entry[before:]
        whole = zlib.crc32(jpeg) == int.from_bytes(entry[_CRC], "little")
        if not whole or _size(jpeg) != (header["width"], header["height"]):
            raise shard.damaged(f"frame {number}")
        return jpeg

    def prints(self) -> bytes | None:
        """The entry `prints.npy`; None in a shard of before there were prints.

        Raises:
            SurgdinoError: its bytes have changed.
        """
        entry = self._shard.header.get("prints")
        if entry is None:
            return None
        data = os.pread(self._descriptor, entry["size"], entry["offset"])
        if zlib.crc32(data) != entry["crc32"]:
            raise self._shard.damaged("prints.npy")
        return data


class ShardWriter:
    """Writes the frames of one video, in order."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._rows: list[tuple] = []

    def add(self, number: int, time: float, jpeg: bytes, flags: set[str], content: Content) -> None:
        """Append one encoded frame; `content` is in stored pixels."""
        offset, size = self._entry(_name(number), jpeg)
        bits = sum(1 << FLAGS.index(flag) for flag in flags)
        self._rows.append((number, round(time, 6), bits, content.cx, content.cy, content.radius, offset, size))

    def finish(self, header: Mapping[str, Any], prints: bytes) -> None:
        """Write the prints, the index and where it lies."""
        offset, size = self._entry("prints.npy", prints)
        header = {**header, "prints": {"offset": offset, "size": size, "crc32": zlib.crc32(prints)}}
        columns = dict(zip(COLUMNS, map(list, zip(*self._rows, strict=True)), strict=True))
        index = json.dumps({"format": FORMAT, **header, "frames": columns}, ensure_ascii=False).encode()
        offset, size = self._entry("index.json", index)
        self._archive.comment = _COMMENT.format(offset=offset, size=size, crc=zlib.crc32(index)).encode()

    def _entry(self, name: str, data: bytes) -> tuple[int, int]:
        self._archive.writestr(zipfile.ZipInfo(name, _EPOCH), data)
        file = self._archive.fp
        assert file is not None  # the archive is open as long as the writer is in use
        return file.tell() - len(data), len(data)


@contextmanager
def write_shard(path: Path) -> Iterator[ShardWriter]:
    """Write a temporary file and rename it once it is whole; on any failure `path` stays as it was."""
    with atomic_write(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        yield ShardWriter(archive)


def read_shard(path: Path) -> Shard:
    """Read a shard's index.

    Raises:
        FileNotFoundError: there is no such shard.
        SurgdinoError: it is damaged, or of another format.
    """
    if not path.exists():
        raise FileNotFoundError(path)
    try:
        with regular(path).open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _COMMENT_SIZE))
            found = _PATTERN.search(file.read())
            start = min(int(found[1]), size) if found else size
            file.seek(start)
            index = file.read(min(int(found[2]), _MOST_INDEX) if found else 0)
    except OSError as error:
        raise from_os_error(error, path) from error
    if not found or zlib.crc32(index) != int(found[3], 16):
        raise SurgdinoError("the shard of the frame store is damaged", file=path, fix=AGAIN)
    return Shard(path, *parse_index(index, path, start), zlib.crc32(index))


def _name(number: int) -> str:
    return f"frames/{number:08d}.jpg"


def _size(jpeg: bytes) -> tuple[int, int] | None:
    """(width, height) by the frame header of a JPEG, before anything is decoded."""
    at = 2
    while at + 9 <= len(jpeg) and jpeg[at] == 0xFF:
        if 0xC0 <= jpeg[at + 1] <= 0xCF and jpeg[at + 1] not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", jpeg, at + 5)
            return width, height
        at += 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
    return None


def remove_leftovers(folder: Path) -> None:
    """Delete temporary files of killed processes; younger ones than an hour may belong to a live one."""
    for file in folder.glob(".*.zip.*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - file.stat().st_mtime > _LEFTOVER_SECONDS:
                file.unlink()
