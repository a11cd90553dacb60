"""Real video files whose every picture carries its own number, so that a test sees which frame it was given."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

COLUMNS, ROWS, BLOCK = 4, 3, 32
WIDTH, HEIGHT = COLUMNS * BLOCK, ROWS * BLOCK  # twelve bits, a block each
_TICKS = 90_000


def picture(number: int) -> np.ndarray:
    """uint8 [96, 128, 3]: the number in binary, a bright or dark block a bit, red as tissue, with a line that moves."""
    bits = (number >> np.arange(COLUMNS * ROWS)) & 1
    image = np.kron(bits.reshape(ROWS, COLUMNS), np.ones((BLOCK, BLOCK))) * 160 + 40
    image[::4, (number * 3) % WIDTH] = 120
    return (image[..., None] * np.array([1.0, 0.45, 0.4])).astype(np.uint8)


def number_in(image: np.ndarray) -> int:
    """The number that a picture of any size carries."""
    grey = cv2.resize(image.max(axis=2), (COLUMNS * 4, ROWS * 4), interpolation=cv2.INTER_AREA)
    blocks = grey.reshape(ROWS, 4, COLUMNS, 4)[:, 1:3, :, 1:3].mean(axis=(1, 3))
    bits = blocks.ravel() > 120
    return int((bits << np.arange(bits.size)).sum())


@contextmanager
def _scheduled_as_before() -> Iterator[None]:
    """SVT-AV1 gives a process of root's real-time priority; what that starts would starve all else on its core."""
    policy, parameters, cores = os.sched_getscheduler(0), os.sched_getparam(0), os.sched_getaffinity(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameters)
        os.sched_setaffinity(0, cores)


def write_video(
    path: Path,
    frames: int = 100,
    *,
    fps: float = 25,
    codec: str = "libx264",
    times: Sequence[float] | None = None,
    gop: int = 12,
    b_frames: int = 2,
    pictures: Sequence[np.ndarray] | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Encode `frames` numbered pictures; `times` in seconds make the rate variable."""
    times = times if times is not None else np.arange(frames) / fps
    first = pictures[0] if pictures is not None else picture(0)
    with _scheduled_as_before(), av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = gop
        stream.codec_context.max_b_frames = b_frames
        stream.options = options or ({"preset": "veryfast", "threads": "1"} if codec == "libx264" else {})
        # MPEG-4 has no room for such fine ticks, and AVI for none but whole frames.
        coarse = codec in ("mpeg4", "mpeg2video") or path.suffix == ".avi"
        base = 1 / Fraction(fps).limit_denominator(1001) if coarse else Fraction(1, _TICKS)
        stream.codec_context.time_base = base
        for number, time in enumerate(times):
            image = pictures[number] if pictures is not None else picture(number)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.time_base, frame.pts = base, round(time / base)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def cut_start(path: Path, frames: int, fps: float = 25) -> Path:
    """Hide the first `frames` frames of an MP4 by its edit list, as a cut without re-encoding does."""
    data = bytearray(path.read_bytes())
    movie_ticks = struct.unpack_from(">I", data, data.index(b"mvhd") + 16)[0]
    media_ticks = struct.unpack_from(">I", data, data.index(b"mdhd") + 16)[0]
    at = data.index(b"elst") + 12
    duration, start = struct.unpack_from(">Ii", data, at)
    struct.pack_into(
        ">Ii", data, at, duration - round(frames / fps * movie_ticks), start + round(frames / fps * media_ticks)
    )
    path.write_bytes(data)
    return path


def rotate(path: Path, quarter_turns_clockwise: int) -> Path:
    """Ask players to turn the picture, as a phone held upright does."""
    a, b = {0: (1, 0), 1: (0, 1), 2: (-1, 0), 3: (0, -1)}[quarter_turns_clockwise % 4]
    return show_by_matrix(path, a, b, -b, a)


def show_by_matrix(path: Path, a: int, b: int, c: int, d: int) -> Path:
    """Ask players to show (x, y) at (a x + c y, b x + d y), through the matrix in the track's header."""
    data = bytearray(path.read_bytes())
    one = 1 << 16
    struct.pack_into(">9i", data, data.index(b"tkhd") + 44, a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def restamp(source: Path, path: Path, stamp: Callable[[int, int], int]) -> Path:
    """Copy the packets, the time stamps of the k-th changed to `stamp(k, ticks)`."""
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for k, packet in enumerate(each for each in old.demux(old.streams.video[0]) if each.dts is not None):
            packet.pts, packet.dts, packet.stream = stamp(k, packet.pts), stamp(k, packet.dts), stream
            new.mux(packet)
    return path
