"""Opening a video file: what it may be, what its head claims, which of its streams is the film."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition

from surgdino.datasets.files import EXPORT_DICOM, MOST_PIXELS, is_dicom_head
from surgdino.errors import SurgdinoError, from_os_error
from surgdino.paths import regular

# FFmpeg's own messages name no file; ours do. At any level but None, decoder threads call into Python: they would hang
# when they report damage while the interpreter waits for them to end.
av.logging.set_level(None)

# What recorders write. FFmpeg would also follow lists of other files (ffconcat, HLS, DASH, SDP) and patterns of images.
_FORMATS = (
    "mov,matroska,avi,mpeg,mpegts,mpegvideo,asf,flv,mxf,gxf,h264,hevc,vvc,av1,obu,ivf,m4v,vc1,mjpeg,mpjpeg,ogg,dv,nut,"
    "wtv,rm,yuv4mpegpipe"
)
# `file:` before an absolute path, and no other protocol: a name such as `http:/...` or `concat:...` is a name.
_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": _FORMATS}

_MP4_BOXES = frozenset(b"ftyp moov mdat free skip wide styp moof sidx uuid pnot mfra".split())
_PARENTS = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf", b"mfra"}
# Where in an MP4 table the number of its entries lies; of `stts` and `ctts`, each entry says for how many frames it is.
_COUNTS = {b"stts": 12, b"ctts": 12, b"stsc": 12, b"stss": 12, b"stco": 12, b"co64": 12, b"stsz": 16, b"stz2": 16}
_COUNTS |= {b"trun": 12, b"tfra": 20, b"elst": 12}
# A file may claim one frame or table entry a byte, and so many more.
_SPARE_CLAIMS, _MOST_BOXES = 1_000_000, 2_000_000


@contextmanager
def open_video(path: Path, stream: int | None = None) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """Open a file and its film, or the video stream with that index.

    Raises:
        SurgdinoError: not a file, truncated, not a video, without a film, or its pictures are too large.
    """
    check_whole(path)
    try:
        with av.open(f"file:{path.absolute()}", options=_OPTIONS, metadata_errors="replace") as container:
            film = container.streams[stream] if stream is not None else _film(path, container)
            assert isinstance(film, av.VideoStream)
            if film.width * film.height > MOST_PIXELS:
                raise SurgdinoError(
                    "the pictures are too large",
                    file=path,
                    expected=f"at most {MOST_PIXELS:,} pixels",
                    found=f"{film.width}x{film.height}",
                )
            # Without the first the decoder conceals damage silently. With the second it does not guess how far pictures
            # are out of order, which loses some at the start of a stream that does not declare it.
            film.codec_context.options = {"err_detect": "explode", "strict": "strict", "max_pixels": str(MOST_PIXELS)}
            yield container, film
    except av.error.FFmpegError as error:
        raise _unreadable(path, error) from error
    except OSError as error:
        raise from_os_error(error, path) from error


def _film(path: Path, container: av.container.InputContainer) -> av.VideoStream:
    """The stream that FFmpeg shows by default: no cover, no still beside a film; the largest, a declared one first."""
    streams = [each for each in container.streams.video if not each.disposition & Disposition.attached_pic]
    known = [each for each in streams if each.codec_context is not None]
    if not known:
        found = "one of an unknown codec" if streams else "a cover picture" if container.streams.video else "none"
        raise SurgdinoError("has no video stream", file=path, expected="a video", found=found, fix="leave the file out")
    moving = [each for each in known if each.frames != 1 and not each.disposition & Disposition.still_image]
    declared = 5_000_000  # pixels that a default stream is ahead, as in FFmpeg
    return max(
        moving or known,
        key=lambda each: each.width * each.height + declared * bool(each.disposition & Disposition.default),
    )


def _unreadable(path: Path, error: av.error.FFmpegError) -> SurgdinoError:
    with path.open("rb") as file:
        head = file.read(512)
    if is_dicom_head(head):
        return SurgdinoError("is a DICOM file", file=path, expected="a video", fix=EXPORT_DICOM)
    found, fix = error.strerror, "check that it plays; copy it again or leave it out"
    if head and all(byte >= 32 or byte in b"\t\r\n" for byte in head):
        found, fix = "text, such as a web page or a list of other files", "leave it out"
    elif isinstance(error, av.error.ArgumentError):
        found = "another kind of file"
    return SurgdinoError("is not a readable video", file=path, expected="a recording", found=found, fix=fix)


def check_whole(path: Path) -> None:
    """Refuse an MP4 or QuickTime file that is cut short, or whose tables claim more frames than it can hold.

    A demuxer reads a truncated file silently, but the boxes state their own sizes; and it believes a table that says
    80 million frames in a file of a few kilobytes. Other containers pass; `index_packets` compares their declared
    duration with their last frame.

    Raises:
        SurgdinoError: not a file; truncated; without the index (`moov`) that a recorder writes last; false claims.
    """
    size = regular(path).stat().st_size
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise from_os_error(error, path) from error
    try:
        _check_boxes(path, descriptor, size)
    except OSError as error:
        raise from_os_error(error, path) from error
    finally:
        os.close(descriptor)


def _check_boxes(path: Path, file: int, size: int) -> None:
    kinds: set[bytes] = set()
    position = 0
    while position < size:
        kind, length = _box(os.pread(file, 16, position), size - position)
        if not kinds and kind not in _MP4_BOXES:
            return
        if length < 8 or (position + length > size and kind not in _MP4_BOXES):
            return  # padding after the last box: nothing that a reader needs
        if kind == b"moov" and kind in kinds:
            fix = "join the parts with FFmpeg's concat, not byte by byte: players show the first alone"
            raise SurgdinoError("holds several recordings", file=path, found="a second moov box", fix=fix)
        kinds.add(kind)
        if kind in _PARENTS:
            _check_claims(path, file, position + 8, min(position + length, size))
        position += length
    if position > size:
        raise truncated(path, f"{position:,} bytes", f"{size:,} bytes")
    if kinds and not kinds & {b"moov", b"moof"}:
        raise truncated(path, "an index (moov box)", "none")


def _check_claims(path: Path, file: int, start: int, end: int) -> None:
    """The tables in a box, at any depth."""
    size, boxes, ranges = os.fstat(file).st_size, 0, [(start, end)]
    while ranges:
        start, end = ranges.pop()
        kind, length = _box(os.pread(file, 16, start), end - start)
        boxes += 1
        if boxes > _MOST_BOXES:
            raise _false_claims(path, f"more than {_MOST_BOXES:,} boxes")
        if length < 8:
            continue
        here = min(start + length, end)
        if here < end:
            ranges.append((here, end))
        if kind in _PARENTS:
            ranges.append((start + 8, here))
        elif kind in _COUNTS and (claimed := _claims(file, kind, start, here - start)) > _SPARE_CLAIMS + size:
            raise _false_claims(path, f"{claimed:,} in {size:,} bytes")


def _claims(file: int, kind: bytes, start: int, length: int) -> int:
    """How many frames or entries a table speaks of."""
    at = _COUNTS[kind]
    head = os.pread(file, 4, start + at)
    if length < at + 4 or len(head) < 4:
        return 0
    count = int.from_bytes(head, "big")
    if kind not in (b"stts", b"ctts"):
        return count
    table = os.pread(file, min(8 * count, length - at - 4), start + at + 4)
    return int(np.frombuffer(table[: len(table) // 8 * 8], ">u4")[::2].sum(dtype=np.int64))


def _box(header: bytes, remaining: int) -> tuple[bytes, int]:
    if len(header) < 8:
        return b"", 0
    length, kind = struct.unpack(">I4s", header[:8])
    if length == 1 and len(header) == 16:
        length = struct.unpack(">Q", header[8:])[0]
    return kind, remaining if length == 0 else length


def _false_claims(path: Path, found: str) -> SurgdinoError:
    fix = "copy it again or leave it out"
    return SurgdinoError("claims more frames than it can hold", file=path, found=found, fix=fix)


def truncated(path: Path, expected: str, found: str) -> SurgdinoError:
    """The error for a file that ends too early."""
    return SurgdinoError("the video is truncated", file=path, expected=expected, found=found, fix="copy it again")
