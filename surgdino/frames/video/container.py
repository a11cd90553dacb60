"""What a container's bytes promise: a demuxer reads a truncated file without a word, the boxes' sizes do not lie."""

from __future__ import annotations

import struct
from pathlib import Path

from surgdino.errors import SurgdinoError

_MP4_BOXES = {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp", b"moof", b"sidx", b"uuid", b"pnot"}


def check_whole(path: Path) -> None:
    """Refuse an MP4 or QuickTime file whose top-level boxes reach past the file's end.

    The boxes state their own sizes, so a partial copy or a recording that was cut off is told exactly. Other containers
    pass; `decode_pyav` holds their declared duration against their last frame.

    Raises:
        SurgdinoError: truncated, or without the index (`moov`) that a recorder writes last.
    """
    size = path.stat().st_size
    kinds: set[bytes] = set()
    position = 0
    with path.open("rb") as file:
        while position < size:
            file.seek(position)
            header = file.read(16)
            kind, length = _box(header, size - position)
            if not kinds and kind not in _MP4_BOXES:
                return
            if length < 8 or (position + length > size and kind not in _MP4_BOXES):
                return  # padding after the last box: nothing that a reader needs
            kinds.add(kind)
            position += length
    if position > size:
        raise _truncated(path, f"{position:,} bytes", f"{size:,} bytes")
    if kinds and not kinds & {b"moov", b"moof"}:
        raise _truncated(path, "an index (moov box)", "none")


def _box(header: bytes, remaining: int) -> tuple[bytes, int]:
    if len(header) < 8:
        return b"", 0
    length, kind = struct.unpack(">I4s", header[:8])
    if length == 1 and len(header) == 16:
        length = struct.unpack(">Q", header[8:])[0]
    return kind, remaining if length == 0 else length


def _truncated(path: Path, expected: str, found: str) -> SurgdinoError:
    return SurgdinoError("the video is truncated", file=path, expected=expected, found=found, fix="copy it again")
