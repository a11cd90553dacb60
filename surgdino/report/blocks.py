"""What a section of the page is made of: plain data, which a macro of blocks.html turns into HTML and escapes."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

_JPEG_QUALITY = 85


@dataclass(frozen=True)
class Paragraph:
    """A few sentences; a `note` is set smaller."""

    text: str
    note: bool = False


@dataclass(frozen=True)
class Heading:
    """A heading inside a section."""

    text: str


@dataclass(frozen=True)
class Bullets:
    """A list."""

    lines: Sequence[str]


@dataclass(frozen=True)
class Code:
    """Text as it is; folded away behind `summary` where that is given."""

    text: str
    summary: str | None = None


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        numeric: columns set to the right.
        strong: rows set in bold.
        tones: (row, column) -> `better` or `worse`.
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    numeric: frozenset[int] = frozenset()
    strong: frozenset[int] = frozenset()
    tones: Mapping[tuple[int, int], str] = field(default_factory=dict)


@dataclass(frozen=True)
class Charts:
    """SVG elements side by side, or `wide` ones below each other."""

    svgs: Sequence[str]
    wide: bool = False


@dataclass(frozen=True)
class Picture:
    """A picture inside the page: a data URI and its caption."""

    uri: str
    caption: str = ""


@dataclass(frozen=True)
class Pictures:
    """A grid of pictures."""

    pictures: Sequence[Picture]
    columns: int


Block = Paragraph | Heading | Bullets | Code | Table | Charts | Pictures


def picture(image: np.ndarray, caption: str = "") -> Picture:
    """uint8 RGB [h, w, 3] as a JPEG inside the page."""
    done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    assert done  # an encoder in memory fails for impossible shapes only
    return Picture("data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode(), caption)


def png_picture(data: bytes, caption: str = "") -> Picture:
    """The bytes of a PNG file inside the page."""
    return Picture("data:image/png;base64," + base64.b64encode(data).decode(), caption)
