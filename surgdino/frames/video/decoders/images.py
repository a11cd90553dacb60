"""Frames of a dataset released as images: a folder with one image a frame, numbered by its file name; or one image."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from surgdino.datasets.files import numbered_images
from surgdino.errors import SurgdinoError, from_os_error
from surgdino.frames.video.decode import Decoder, Frame, VideoInfo, resize


class Images(Decoder):
    """Images that OpenCV reads, on one thread; masks beside them (`mask07.png`, as in DSAD) are not frames."""

    def probe(self, path: Path, fps: float | None) -> VideoInfo:
        """List the images; the last digits in a file's name are its frame number. A single file is frame 0."""
        files = numbered_images(path) if path.is_dir() else {0: path}
        if not files:
            raise SurgdinoError("the folder holds no images", file=path, expected="files such as 000025.png")
        numbers = np.array(sorted(files), dtype=np.int64)
        height, width = _load(files[int(numbers[0])]).shape[:2]
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
            variable_rate=bool(np.ptp(np.diff(numbers))) if len(numbers) > 1 else False,
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
                image = _load(info.source[number])
            except SurgdinoError:
                continue
            if image.shape[:2] == (info.height, info.width):
                yield Frame(number, time_of[number], resize(image, size))


def _load(file: Path) -> np.ndarray:
    try:
        data = np.fromfile(file, dtype=np.uint8)  # cv2.imread does not know every letter in a name on every platform
    except OSError as error:
        raise from_os_error(error, file) from error
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if image is None:
        raise SurgdinoError("is not a readable image", file=file, expected="an image", fix="copy it again")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
