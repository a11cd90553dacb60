"""What a section of the page is made of: plain data, which a macro of blocks.html turns into HTML and escapes."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from surgdino.report.forest import Forest

_JPEG_QUALITY = 80


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
class Folded:
    """Blocks behind a line to click; on paper they are open."""

    summary: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Table:
    """A table; the first cell of a row names it.

    Attributes:
        numeric: columns set to the right.
        strong: rows set in bold.
        tones: (row, column) -> `better`, `worse` or `open`.
        shades: (row, column) -> 0 to 1, how dark a cell is; such a table is a matrix, its heads written upwards.
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    numeric: frozenset[int] = frozenset()
    strong: frozenset[int] = frozenset()
    tones: Mapping[tuple[int, int], str] = field(default_factory=dict)
    shades: Mapping[tuple[int, int], float] = field(default_factory=dict)


@dataclass(frozen=True)
class Charts:
    """SVG elements side by side, or `wide` ones below each other."""

    svgs: Sequence[str]
    wide: bool = False


@dataclass(frozen=True)
class Picture:
    """A picture inside the page.

    Attributes:
        uri: a data URI.
        caption: under it, cut where it is long; the whole of it is shown on hover and read to those who do not see.
        mark: how it is framed: `query`, `hit`, `miss` or `open`; its sign stands before the caption.
        pixels: a grid of few pixels, drawn large with sharp edges.
    """

    uri: str
    caption: str = ""
    mark: str = ""
    pixels: bool = False


@dataclass(frozen=True)
class Pictures:
    """A grid of pictures, of fewer columns on a narrow page."""

    pictures: Sequence[Picture]
    columns: int


@dataclass(frozen=True)
class Strip:
    """Pictures that stay side by side, under a title."""

    title: str
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Strips:
    """Strips, several to a line where there is room."""

    strips: Sequence[Strip]


@dataclass(frozen=True)
class Scale:
    """The legend of a colour map: its colours `#rrggbb` from left to right, and what its ends and its middle mean."""

    colours: Sequence[str]
    ends: tuple[str, str]
    text: str


@dataclass(frozen=True)
class Legend:
    """Names beside their colours: (`#rrggbb`, name)."""

    legend: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Maps:
    """SVG elements side by side that share a legend.

    Attributes:
        legend: (SVG of a sign, name).
    """

    svgs: Sequence[str]
    legend: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Ribbon:
    """A row of a timeline; `kind` is `classes`, `wrong` or `present`. Parts are (from, width, colour, what it is), from
    and width as shares of the whole."""

    name: str
    kind: str
    parts: Sequence[tuple[float, float, str, str]]


@dataclass(frozen=True)
class Timeline:
    """A video in time, which scrolls inside its card.

    Attributes:
        title, said: its name and a few words at the right.
        width: pixels that it needs; it is never narrower than the card.
        ribbons: from the top.
        sure: points of a polygon in 1000 x 100; empty for none.
        ticks: (where, as a share; what it says).
        pictures: (where the middle is, as a share; a frame with its time).
        legend: (colour, name).
    """

    title: str
    said: str
    width: int
    ribbons: Sequence[Ribbon]
    sure: str
    ticks: Sequence[tuple[float, str]]
    pictures: Sequence[tuple[float, Picture]]
    legend: Sequence[tuple[str, str]]


Block = (
    Paragraph
    | Heading
    | Bullets
    | Code
    | Folded
    | Table
    | Charts
    | Forest
    | Pictures
    | Strips
    | Scale
    | Legend
    | Maps
    | Timeline
)


def picture(image: np.ndarray, caption: str = "", mark: str = "") -> Picture:
    """uint8 RGB [h, w, 3] as a JPEG inside the page."""
    quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    return Picture(_uri(image, ".jpg", quality), caption, mark)


def pixel_picture(image: np.ndarray, caption: str = "") -> Picture:
    """uint8 RGB [h, w, 3] of few pixels, which the page draws large."""
    return Picture(_uri(image, ".png", []), caption, pixels=True)


def _uri(image: np.ndarray, suffix: str, settings: list[int]) -> str:
    done, data = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), settings)
    assert done  # an encoder in memory fails for impossible shapes only
    return f"data:image/{'png' if suffix == '.png' else 'jpeg'};base64,{base64.b64encode(data.tobytes()).decode()}"


def png_picture(data: bytes, caption: str = "", *, pixels: bool = False) -> Picture:
    """The bytes of a PNG file inside the page."""
    return Picture("data:image/png;base64," + base64.b64encode(data).decode(), caption, pixels=pixels)
