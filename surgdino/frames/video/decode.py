"""The one way to frames: a video file through a decoder, a folder of images, or one image.

Frame numbers are 0-based, in presentation order, and count presentable frames only: what an edit list hides, or what
precedes the first key frame, has no number. In a folder of images the number is the one in the file's name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from surgdino import discovery
from surgdino.datasets.files import is_image, is_pictures
from surgdino.errors import SurgdinoError
from surgdino.paths import regular

_STILLS = ("images", "pictures")  # what is no video file
# Pictures of a set are called so many pixels square, whatever their own sizes, and an hour apart.
_PICTURE_SIDE, _PICTURE_FPS = 8192, 1 / 3600
# Of two frames equally far from a sampling point, up to the rounding of time stamps, the earlier one, on every machine.
_TIE = 1e-6


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a video without decoding it.

    Attributes:
        path: the file, or the folder of images.
        codec: FFmpeg's name of it (`h264`, `hevc`, `av1`, ...), or `images`, or `pictures` that are no recording.
        width: pixels as shown, that is after rotation.
        height: pixels as shown.
        frame_count: presentable frames.
        fps: average frames per second.
        duration: seconds from the first frame to the end of the last one.
        rotation: degrees anticlockwise (0, 90, 180, 270) that the stored picture is turned before it is shown.
        mirrored: whether left and right are exchanged before that.
        remarks: what a user should know of the file.
        numbers: int64 [frame_count], ascending; 0, 1, 2, ... for a video.
        times: float64 [frame_count], seconds from the first presentable frame.
        key_numbers: int64 [k], ascending: frames that decode by themselves.
        source: the decoder's own index of the file.
    """

    path: Path
    codec: str
    width: int
    height: int
    frame_count: int
    fps: float
    duration: float
    rotation: int
    numbers: np.ndarray = field(repr=False, compare=False)
    times: np.ndarray = field(repr=False, compare=False)
    key_numbers: np.ndarray = field(repr=False, compare=False)
    source: Any = field(repr=False, compare=False, default=None)
    mirrored: bool = False
    remarks: tuple[str, ...] = ()


@dataclass
class Frame:
    """One decoded frame: its number, its time in seconds, and uint8 [H, W, 3] RGB, upright."""

    number: int
    time: float
    image: np.ndarray


class Decoder:
    """Reads frames from one kind of source: a class in a file of its own in `decoders/`."""

    def probe(self, path: Path, fps: float | None) -> VideoInfo:
        """See `probe` below."""
        raise NotImplementedError

    def read(self, info: VideoInfo, numbers: np.ndarray, size: tuple[int, int], threads: int) -> Iterator[Frame]:
        """Frames by number (ascending, present) at `size` (width, height); those that do not decode are left out."""
        raise NotImplementedError

    def fault(self, info: VideoInfo, number: int) -> SurgdinoError:
        """Why `read` left that frame out."""
        fix = "repair or re-encode the video"
        return SurgdinoError("the frame does not decode", file=info.path, place=f"frame {number}", fix=fix)


def _decoder(name: str) -> Decoder:
    module = discovery.load("surgdino.frames.video.decoders", name, "data.decoder")
    return discovery.defined(module, Decoder)()


def decoder_of(info: VideoInfo, backend: str = "pyav") -> Decoder:
    """What reads a source that was probed."""
    return _decoder(info.codec if info.codec in _STILLS else backend)


def probe(
    path: str | Path, backend: str = "pyav", *, fps: float | None = None, pictures: Sequence[str] = ()
) -> VideoInfo:
    """List the presentable frames of a source; at most one frame is decoded.

    Args:
        path: a video file, an image, or a folder of images.
        backend: a file in `decoders/`; `decord` also checks here that it agrees with the container.
        fps: frames per second that the numbers of an image folder count in (1 where unknown); ignored for videos.
        pictures: files inside `path` that are no recording; see `surgdino.datasets.manifest.Video`.

    Raises:
        SurgdinoError: missing, empty, truncated, not a video, or refused by the backend.
    """
    path = Path(path)
    is_folder = is_pictures(path)
    if not (is_folder or path.exists()):
        raise SurgdinoError("does not exist", file=path, expected="a video or a folder of images", fix="check the path")
    if pictures:
        return _of_pictures(path, pictures)
    if not is_folder and regular(path).stat().st_size == 0:
        raise SurgdinoError("the file is empty", file=path, expected="a video", found="0 bytes", fix="copy it again")
    return _decoder("images" if is_folder or is_image(path) else backend).probe(path, fps)


def _of_pictures(path: Path, pictures: Sequence[str]) -> VideoInfo:
    numbers = np.arange(len(pictures), dtype=np.int64)
    return VideoInfo(
        path=path,
        codec="pictures",
        width=_PICTURE_SIDE,
        height=_PICTURE_SIDE,
        frame_count=len(pictures),
        fps=_PICTURE_FPS,
        duration=len(pictures) / _PICTURE_FPS,
        rotation=0,
        numbers=numbers,
        times=numbers / _PICTURE_FPS,
        key_numbers=numbers,
        source=[path / name for name in pictures],
    )


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
        backend: as for `probe`.
        short_side: shrink so that the shorter side has this many pixels; never enlarges.
        info: the result of `probe`, which saves a second pass over the file.
        threads: decoder threads.
        damaged: `raise` on a frame that does not decode, or `skip` it.

    Raises:
        SurgdinoError: as `probe`; a number that the video does not have; a damaged frame.
    """
    info = info or probe(path, backend)
    wanted = np.unique(np.asarray(numbers, dtype=np.int64))
    unknown = np.setdiff1d(wanted, info.numbers)
    if unknown.size:
        raise SurgdinoError(
            "no such frame", file=path, place=f"frame {unknown[0]}", expected=f"{info.numbers[0]} to {info.numbers[-1]}"
        )
    size = (info.width, info.height) if short_side is None else scaled_size(info.width, info.height, short_side)
    expected = iter(wanted.tolist())
    decoder = decoder_of(info, backend)
    for frame in decoder.read(info, wanted, size, threads):
        for number in expected:
            if number == frame.number:
                break
            if damaged == "raise":
                raise decoder.fault(info, number)
        yield frame
    for number in expected:
        if damaged == "raise":
            raise decoder.fault(info, number)


def sample_numbers(times: np.ndarray, fps: float | None) -> np.ndarray:
    """Frame numbers nearest to 0, 1/fps, 2/fps, ... seconds.

    The grid is absolute: 25 fps sampled at 1 fps gives 0, 25, 50, ... to the end, and 29.97 fps stays within half a
    frame of every full second. A frame nearest to several grid points (a gap in a variable-rate video, or `fps` above
    the video's own) is taken once. A video shorter than the step gives its first frame.

    Args:
        times: float64 [n], ascending seconds from the first frame.
        fps: samples per second; None takes every frame.

    Returns:
        int64 [m], ascending positions in `times`.
    """
    times = np.asarray(times, dtype=np.float64)
    if fps is not None and not fps > 0:
        raise ValueError(f"fps must be positive, found {fps}")
    if fps is None or len(times) < 2:
        return np.arange(len(times), dtype=np.int64)
    last = np.floor((times[-1] + _TIE) * fps)
    if last <= 4 * len(times):
        grid = np.arange(int(last) + 1) / fps
    else:  # long gaps, perhaps of years: only grid points beside a frame can be nearest to one that is taken
        beside = np.unique(np.floor(times * fps)[:, None] + np.arange(-1, 3))
        grid = beside[(beside >= 0) & (beside <= last)] / fps
    after = np.clip(np.searchsorted(times, grid), 1, len(times) - 1)
    before = after - 1
    nearest = np.where(times[after] - grid < grid - times[before] - _TIE, after, before)
    return np.unique(nearest).astype(np.int64)


def scaled_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """(width, height) of the same shape, the shorter side at `short_side` pixels; smaller pictures stay as they are."""
    scale = min(1.0, short_side / min(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 [H, W, 3] at `size` (width, height), by area averaging: OpenCV's other ways have no antialiasing."""
    if (image.shape[1], image.shape[0]) == size:
        return image
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)
