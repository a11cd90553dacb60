"""One small interface to whatever holds frames: a video file through PyAV or decord, or images.

Frame numbers are 0-based, in presentation order, and count the presentable frames only: what an edit list cuts away, or
what lies before the first key frame, has no number. For an image folder the number is the one in the file's name.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np

from surgdino.datasets.files import is_image
from surgdino.errors import SurgdinoError, nearest
from surgdino.paths import names_in


@dataclass(frozen=True)
class VideoInfo:
    """What can be known of a video without decoding it.

    Attributes:
        path: the file, or the folder of images.
        codec: FFmpeg's name of it (`h264`, `hevc`, `av1`, ...), or `images`.
        width: pixels as shown, that is after rotation.
        height: pixels as shown.
        frame_count: presentable frames.
        fps: average frames per second.
        duration: seconds from the first frame to the end of the last one.
        rotation: degrees anticlockwise (0, 90, 180, 270) that the stored picture is turned before it is shown.
        variable_rate: whether the steps between frames differ by more than time stamps round.
        numbers: int64 [frame_count], ascending; 0, 1, 2, ... for a video.
        times: float64 [frame_count], seconds from the first presentable frame.
        key_numbers: int64 [k], ascending: frames that decode by themselves.
        source: what the backend needs in order to read the frames without looking through the file again.
    """

    path: Path
    codec: str
    width: int
    height: int
    frame_count: int
    fps: float
    duration: float
    rotation: int
    variable_rate: bool
    numbers: np.ndarray = field(repr=False, compare=False)
    times: np.ndarray = field(repr=False, compare=False)
    key_numbers: np.ndarray = field(repr=False, compare=False)
    source: Any = field(repr=False, compare=False, default=None)


@dataclass
class Frame:
    """One decoded frame: its number, its time in seconds, and uint8 [H, W, 3] RGB, upright."""

    number: int
    time: float
    image: np.ndarray


def backends() -> list[str]:
    """Names that `decoder=` takes: one file each in `decoders/`."""
    return names_in(Path(__file__).parent / "decoders", ".py")


def probe(path: str | Path, backend: str = "pyav", *, fps: float | None = None) -> VideoInfo:
    """Look through the container (no decoding but for one frame) and list its presentable frames.

    Args:
        path: a video file, a folder of images, or one image.
        backend: who will read the frames; `decord` also proves here that it agrees with the container.
        fps: frames per second that the numbers of an image folder count in (1 where unknown); ignored for videos.

    Raises:
        SurgdinoError: missing, empty, truncated, not a video, or refused by the backend.
    """
    path = Path(path)
    if not path.exists():
        raise SurgdinoError("does not exist", file=path, expected="a video or a folder of images", fix="check the path")
    if path.is_dir():
        return _module("images").probe(path, fps=fps)
    if path.stat().st_size == 0:
        raise SurgdinoError("the file is empty", file=path, expected="a video", found="0 bytes", fix="copy it again")
    if is_image(path):
        return _module("images").probe(path, fps=fps)
    return _module(backend).probe(path)


def read_frames(
    path: str | Path,
    numbers: Sequence[int] | np.ndarray,
    backend: str = "pyav",
    short_side: int | None = None,
    *,
    info: VideoInfo | None = None,
    threads: int = 1,
    damaged: str = "raise",
) -> Iterator[Frame]:
    """Yield the frames with the given numbers, ascending.

    Args:
        path: as for `probe`.
        numbers: frame numbers; order and duplicates do not matter.
        backend: `pyav`, or `decord` where it can be trusted; a folder is always read as images.
        short_side: shrink so that the shorter side has this many pixels; never enlarges.
        info: what `probe` said of this file, which saves looking through it again.
        threads: decoder threads.
        damaged: `raise` on a frame that does not decode, or `skip` it.

    Raises:
        SurgdinoError: as `probe`; a number that the video does not have; a damaged frame.
    """
    if info is None:
        info = probe(path, backend)
    wanted = np.unique(np.asarray(numbers, dtype=np.int64))
    unknown = np.setdiff1d(wanted, info.numbers)
    if unknown.size:
        raise SurgdinoError(
            "no such frame", file=path, place=f"frame {unknown[0]}", expected=f"{info.numbers[0]} to {info.numbers[-1]}"
        )
    size = (info.width, info.height) if short_side is None else scaled_size(info.width, info.height, short_side)
    expected = iter(wanted.tolist())
    for frame in _module("images" if info.codec == "images" else backend).read(info, wanted, size, threads):
        for number in expected:
            if number == frame.number:
                break
            _damaged(info, number, damaged)
        yield frame
    for number in expected:
        _damaged(info, number, damaged)


def scaled_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """(width, height) of the same shape, the shorter side at `short_side` pixels; smaller pictures stay as they are."""
    scale = min(1.0, short_side / min(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 [H, W, 3] at `size` (width, height), by area averaging: OpenCV's other ways have no antialiasing."""
    if (image.shape[1], image.shape[0]) == size:
        return image
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _damaged(info: VideoInfo, number: int, policy: str) -> None:
    if policy == "raise":
        raise SurgdinoError(
            "the frame does not decode", file=info.path, place=f"frame {number}", fix="repair or re-encode the video"
        )


def _module(backend: str) -> ModuleType:
    if backend not in backends():
        raise SurgdinoError(f"no decoder is called {backend!r}", fix=nearest(backend, backends()))
    return importlib.import_module(f"surgdino.frames.video.decoders.{backend}")
