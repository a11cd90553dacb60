"""Folders of images: bombs, damaged and unusual files, frame numbers, orientation, files that are none."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.campaigns.hostile.case import Case, done, either, shows, used_or_aside
from tests.campaigns.hostile.making import PRETRAIN, VERIFY, picture, picture_operations, pictures, png_bomb

BOMBS = {"32000": (32000, 32000), "50000": (50000, 50000), "16384 x 16": (16384, 16), "4 billion": (2**31 - 1, 1)}
NUMBERS = ("9" * 30, "20240131123045", "-1", "1e5", "000001 (2)", "frame", "\u0663", "0" * 200, "1.5", "0x10")


def cases() -> Iterator[Case]:
    for name, (width, height) in BOMBS.items():
        content = partial(png_bomb, width, min(height, 50000))
        for place in ("000000.png", "000002.png"):
            yield from _both("image bombs", f"PNG of {name} as {place}", partial(_add, place, content))
    for number in NUMBERS:
        yield from _both("frame numbers", repr(number[:20]), lambda d, n=number: picture(9).save(d / f"{n}.png"))
    for name, content in _odd().items():
        yield from _both("image files", name, partial(_add, "000002.png", content))
    for fraction in (0, 1, 3, 6, 7):
        yield from _both("image files", f"PNG cut to {fraction} of 8", partial(_cut, "PNG", fraction))
        yield from _both("image files", f"JPEG cut to {fraction} of 8", partial(_cut, "JPEG", fraction))
    for turn in range(2, 10):
        yield from _both("image orientation", str(turn), partial(_turned, turn))
    yield from _both("image files", "another size", lambda d: picture(9, (64, 96)).save(d / "000002.png"))
    yield from _both(
        "image files", "a named pipe", lambda d: (d / "000002.png").unlink() or os.mkfifo(d / "000002.png")
    )
    yield from _both("image files", "a link to nothing", lambda d: (d / "000009.png").symlink_to("nothing"))
    yield from _both(
        "image files", "name without UTF-8", lambda d: os.rename(d / "000002.png", os.fsencode(d) + b"/\xfc2.png")
    )


def _both(kind: str, name: str, make: Callable[[Path], object]) -> Iterator[Case]:
    made = partial(_beside, make)
    yield Case(kind, name, made, PRETRAIN, either(used_or_aside("x"), done(r"\bof 4 videos")))
    yield Case(kind, f"{name}, verify", made, VERIFY, shows())


def _beside(make: Callable[[Path], object], folder: Path) -> None:
    picture_operations(folder / "d")
    pictures(folder / "d" / "x")
    make(folder / "d" / "x")


def _add(name: str, content: Callable[[], bytes], folder: Path) -> None:
    (folder / name).write_bytes(content())


def _saved(image: Image.Image, kind: str, **more: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **more)
    return stream.getvalue()


def _odd() -> dict[str, Callable[[], bytes]]:
    """Name -> content of an image file that is unusual or none."""
    plain = picture(9)
    deep = Image.fromarray(np.full((64, 96), 40000, np.uint16))
    return {
        "empty": bytes,
        "a text": lambda: b"not an image",
        "zeros": lambda: bytes(5000),
        "random bytes": lambda: np.random.default_rng(0).bytes(5000),
        "16 bit": lambda: _saved(deep, "PNG"),
        "grey": lambda: _saved(plain.convert("L"), "PNG"),
        "palette": lambda: _saved(plain.convert("P"), "PNG"),
        "alpha": lambda: _saved(plain.convert("RGBA"), "PNG"),
        "one bit": lambda: _saved(plain.convert("1"), "PNG"),
        "CMYK JPEG": lambda: _saved(plain.convert("CMYK"), "JPEG"),
        "progressive JPEG": lambda: _saved(plain, "JPEG", progressive=True),
        "GIF": lambda: _saved(plain, "GIF"),
        "animated PNG": lambda: _saved(plain, "PNG", save_all=True, append_images=[picture(10)]),
        "WebP": lambda: _saved(plain, "WEBP"),
        "TIFF": lambda: _saved(plain, "TIFF"),
        "BMP": lambda: _saved(plain, "BMP"),
        "float TIFF": lambda: _saved(Image.fromarray(np.zeros((64, 96), np.float32)), "TIFF"),
        "SVG": lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "JPEG that claims 65500 x 65500": lambda: _claiming(_saved(plain, "JPEG")),
    }


def _claiming(jpeg: bytes) -> bytes:
    place = jpeg.find(b"\xff\xc0") + 5
    return jpeg[:place] + b"\xff\xdc\xff\xdc" + jpeg[place + 4 :]


def _cut(kind: str, fraction: int, folder: Path) -> None:
    content = _saved(picture(9), kind)
    (folder / ("000002.png" if kind == "PNG" else "000009.jpg")).write_bytes(content[: len(content) * fraction // 8])


def _turned(turn: int, folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    for number in range(4):
        (folder / f"{number:06d}.png").unlink()
        picture(number).save(folder / f"{number:06d}.jpg", exif=exif if number == 2 else Image.Exif())
