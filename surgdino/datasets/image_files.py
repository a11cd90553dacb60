"""Image files without decoding them: which frame a file is, and its size from the first bytes."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import cv2
import numpy as np

from surgdino.datasets.listing import entries, is_image
from surgdino.errors import SurgdinoError, from_os_error

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
# Frame headers of a JPEG, which hold its size; C4, C8 and CC in between mean other things.
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_BARE = frozenset((0x01, *range(0xD0, 0xD9)))  # markers without a length
_END = 1 << 16  # bytes at the end in which the end mark is looked for


def is_mask(path: Path) -> bool:
    """Whether a file's name says that it is the mask of an image beside it, as in DSAD (`mask07.png`)."""
    return path.stem.lower().startswith("mask")


def numbered_images(folder: Path) -> dict[int, Path]:
    """The images of a folder by frame number, ascending: the last digits in a name. Masks beside them are none.

    Raises:
        SurgdinoError: a name without digits, or two names with the same number.
    """
    files: dict[int, Path] = {}
    for path in entries(folder):
        if not is_image(path) or is_mask(path):
            continue
        digits = re.findall(r"\d+", path.stem)
        if not digits:
            raise SurgdinoError("the name has no frame number", file=path, expected="a name such as 000025.png")
        first = files.setdefault(int(digits[-1]), path)
        if first != path:
            fix = "keep one of them"
            raise SurgdinoError("two images have the same frame number", file=path, found=first.name, fix=fix)
    return dict(sorted(files.items()))


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) in pixels. PNG and JPEG are told by their heads, and whether they are whole by their ends.

    Raises:
        SurgdinoError: empty, cut short, or no image.
    """
    try:
        with path.open("rb") as file:
            head = file.read(32)
            if head.startswith(_PNG):
                size = _png_size(head)
            elif head.startswith(_JPEG):
                file.seek(0)
                size = _jpeg_size(file.read())
            else:
                return _decoded_size(path, bool(head))
            file.seek(0, 2)
            file.seek(max(file.tell() - _END, 0))
            end = file.read()
    except OSError as error:
        raise from_os_error(error, path) from error
    if size is None or (b"IEND" if head.startswith(_PNG) else b"\xff\xd9") not in end:
        raise SurgdinoError("the image is cut short", file=path, fix="copy it again")
    return size


def _png_size(head: bytes) -> tuple[int, int] | None:
    return struct.unpack(">II", head[16:24]) if len(head) >= 24 else None  # type: ignore[return-value]


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    position = 2
    while position + 9 <= len(data):
        if data[position] != 0xFF:
            return None
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1  # fill bytes may stand before a marker
        elif marker in _JPEG_BARE:
            position += 2
        elif marker in _JPEG_FRAMES:
            height, width = struct.unpack(">HH", data[position + 5 : position + 9])
            return width, height
        else:
            position += 2 + struct.unpack(">H", data[position + 2 : position + 4])[0]
    return None


def _decoded_size(path: Path, has_bytes: bool) -> tuple[int, int]:
    image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED) if has_bytes else None
    if image is None:
        message = "is not a readable image" if has_bytes else "the file is empty"
        raise SurgdinoError(message, file=path, expected="an image", fix="copy it again")
    return image.shape[1], image.shape[0]
