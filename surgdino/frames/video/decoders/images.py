"""Frames of a dataset released as images: a folder with one image a frame, numbered by its file name; or one image."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from surgdino.datasets.files import is_pictures, numbered_images, size_of
from surgdino.errors import SurgdinoError
from surgdino.frames.video.decode import Decoder, Frame, VideoInfo, resize
from surgdino.paths import read_bytes

_MOST_BYTES = 1 << 30  # of one image


class Images(Decoder):
    """Images that OpenCV reads, on one thread; masks beside them (`mask07.png`, as in DSAD) are not frames."""

    def probe(self, path: Path, fps: float | None) -> VideoInfo:
        """List the images; the last digits in a file's name are its frame number. A single file is frame 0."""
        files = numbered_images(path) if is_pictures(path) else {0: path}
        if not files:
            raise SurgdinoError("the folder holds no images", file=path, expected="files such as 000025.png")
        numbers = np.array(sorted(files), dtype=np.int64)
        height, width = load_image(files[int(numbers[0])]).shape[:2]
        rate = fps or 1.0
        times = (numbers - numbers[0]) / rate
        return VideoInfo(
            path=path,
            codec="images",
            width=width,
            height=height,
            frame_count=len(numbers),
            fps=rate,
            duration=float(times[-1]) + 1 / rate,
            rotation=0,
            numbers=numbers,
            times=times,
            key_numbers=numbers,
            source=files,
        )

    def read(self, info: VideoInfo, numbers: np.ndarray, size: tuple[int, int], threads: int) -> Iterator[Frame]:
        """Leaves out images that are unreadable or of another size than the first."""
        time_of = dict(zip(info.numbers.tolist(), info.times.tolist(), strict=True))
        for number in numbers.tolist():
            try:
                image = _checked(info, number)
            except SurgdinoError:
                continue
            yield Frame(number, time_of[number], resize(image, size))

    def fault(self, info: VideoInfo, number: int) -> SurgdinoError:
        """What is wrong with that image."""
        try:
            _checked(info, number)
        except SurgdinoError as error:
            return error
        return super().fault(info, number)


def _checked(info: VideoInfo, number: int) -> np.ndarray:
    file = info.source[number]
    image = load_image(file)
    height, width = image.shape[:2]
    if (width, height) != (info.width, info.height):
        expected = f"{info.width}x{info.height}, as the first image of the folder"
        fix = "give all images one size and orientation (an EXIF orientation turns one)"
        raise SurgdinoError(
            "the image has another size", file=file, expected=expected, found=f"{width}x{height}", fix=fix
        )
    return image


def load_image(file: Path) -> np.ndarray:
    """uint8 [H, W, 3] RGB of one image file.

    Raises:
        SurgdinoError: it cannot be read, or is no image.
    """
    data = read_bytes(file, _MOST_BYTES)  # cv2.imread does not know every letter in a name on every platform
    size_of(io.BytesIO(data), file)
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise SurgdinoError("is not a readable image", file=file, expected="an image", fix="copy it again")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
