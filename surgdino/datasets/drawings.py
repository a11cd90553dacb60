"""Masks as labelling tools keep them: outlines, runs, brush strokes and stamps, drawn on demand at the picture's size.

Positions are in pixels of the picture, the corner of the first pixel being (0, 0).
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from surgdino.errors import SurgdinoError

_FINE = (8, 4, 2, 1)  # an outline is drawn at this scale: a pixel belongs to it that is covered by more than half
_MOST_FINE = 1 << 26  # pixels of that drawing


@dataclass(frozen=True)
class Outline:
    """A polygon: float64 [n, 2] of x, y."""

    points: np.ndarray

    def draw(self, mask: np.ndarray) -> None:
        """Add it to bool [H, W]."""
        height, width = mask.shape
        low = np.clip(np.floor(self.points.min(0)), 0, (width, height)).astype(int)
        high = np.clip(np.ceil(self.points.max(0)), 0, (width, height)).astype(int)
        size = high - low
        if (size <= 0).any():
            return
        fine = next((scale for scale in _FINE if size.prod() * scale**2 <= _MOST_FINE), 1)
        canvas = np.zeros(size[::-1] * fine, np.uint8)
        corners = np.round((self.points - low) * fine - 0.5).clip(-(1 << 20), 1 << 20).astype(np.int32)
        cv2.fillPoly(canvas, [corners], 255)
        part = cv2.resize(canvas, size.tolist(), interpolation=cv2.INTER_AREA) > 127
        mask[low[1] : high[1], low[0] : high[0]] |= part


@dataclass(frozen=True)
class Runs:
    """Lengths of runs, none first, then the class, and so on, inside a box.

    Attributes:
        counts: int64 [n].
        box: (left, top, width, height) in pixels.
        by_column: whether they go down the columns, as in COCO; along the rows otherwise.
    """

    counts: np.ndarray
    box: tuple[int, int, int, int]
    by_column: bool

    def draw(self, mask: np.ndarray) -> None:
        """Add it to bool [H, W].

        Raises:
            ValueError: the runs are of another box, or the box lies outside.
        """
        left, top, width, height = self.box
        if not (0 <= left <= mask.shape[1] - width and 0 <= top <= mask.shape[0] - height):
            raise ValueError(f"a box of {width}x{height} at {left}, {top}")
        wrong = (self.counts < 0).any() or (self.counts > width * height).any()
        if wrong or self.counts.sum() != width * height:
            raise ValueError(f"runs of {self.counts.sum()} pixels in a box of {width}x{height}")
        flat = np.repeat(np.arange(len(self.counts)) % 2 == 1, self.counts)
        part = flat.reshape(width, height).T if self.by_column else flat.reshape(height, width)
        mask[top : top + height, left : left + width] |= part


@dataclass(frozen=True)
class Brush:
    """Label Studio's brush: RGBA values of the whole picture in its own packing; what is not transparent counts."""

    packed: bytes

    def draw(self, mask: np.ndarray) -> None:
        """Add it to bool [H, W].

        Raises:
            ValueError: the values are of another picture, or end too early.
        """
        bits, place = np.unpackbits(np.frombuffer(self.packed, np.uint8)), 0

        def take(count: int) -> int:
            nonlocal place
            found = bits[place : place + count]
            place += count
            if len(found) < count:
                raise ValueError("brush strokes that are cut short")
            return int("".join(map(str, found.tolist())), 2)

        total = take(32)
        if total != 4 * mask.size:
            raise ValueError(f"brush strokes of {total // 4} pixels on a picture of {mask.size}")
        word = take(5) + 1
        sizes = [take(4) + 1 for _ in range(4)]
        values, filled = np.zeros(total, np.int64), 0
        weights = 1 << np.arange(word - 1, -1, -1)
        while filled < total:
            same, until = take(1), 0
            until = min(filled + 1 + take(sizes[take(2)]), total)
            if same:
                values[filled:until] = take(word)
            else:
                literal = bits[place : place + word * (until - filled)]
                place += len(literal)
                if len(literal) < word * (until - filled):
                    raise ValueError("brush strokes that are cut short")
                values[filled:until] = literal.reshape(-1, word) @ weights
            filled = until
        mask |= values[3::4].reshape(mask.shape) > 0


@dataclass(frozen=True)
class Stamp:
    """A small picture of a mask, as a file's content, with the place of its corner."""

    content: bytes
    left: int
    top: int

    def draw(self, mask: np.ndarray) -> None:
        """Add it to bool [H, W].

        Raises:
            ValueError: not a picture, or it does not lie inside.
        """
        try:
            opened = Image.open(io.BytesIO(self.content))
        except UnidentifiedImageError:
            raise ValueError("no picture") from None
        with opened as image:
            width, height = image.size
            if not (0 <= self.left <= mask.shape[1] - width and 0 <= self.top <= mask.shape[0] - height):
                raise ValueError(f"a mask of {width}x{height} at {self.left}, {self.top}")
            part = np.asarray(image.convert("L")) > 0
        mask[self.top : self.top + height, self.left : self.left + width] |= part


Shape = Outline | Runs | Brush | Stamp


@dataclass(frozen=True)
class Drawing:
    """The mask of one class in one picture.

    Attributes:
        path: the export that it stands in.
        place: where in it, for messages.
        size: (width, height) of the picture that it was drawn on; (0, 0) where the export does not say it.
        shapes: the class is what any of them covers.
    """

    path: Path
    place: str
    size: tuple[int, int]
    shapes: tuple[Shape, ...]

    def draw(self, width: int, height: int) -> np.ndarray:
        """bool [height, width].

        Raises:
            SurgdinoError: it was drawn on a picture of another size, or is damaged.
        """
        if self.size not in ((0, 0), (width, height)):
            raise SurgdinoError(
                "drawn on a picture of another size",
                file=self.path,
                place=self.place,
                expected=f"{width}x{height}, as the picture is",
                found="{}x{}".format(*self.size),
                fix="export it again, with the picture that is here",
            )
        mask = np.zeros((height, width), bool)
        try:
            for shape in self.shapes:
                shape.draw(mask)
        except (ValueError, OSError, SyntaxError, Image.DecompressionBombError) as error:
            fix, expected = "export it again", f"a mask of {width}x{height}"
            what = "a mask that cannot be drawn"
            raise SurgdinoError(
                what, file=self.path, place=self.place, expected=expected, found=error, fix=fix
            ) from error
        return mask


def coco_counts(packed: str) -> np.ndarray:
    """COCO's compressed runs as int64 [n]: six bits a character, differences to the run before the last.

    Raises:
        ValueError: other characters than COCO writes.
    """
    counts: list[int] = []
    value = shift = 0
    for character in packed:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift > 60:
            raise ValueError("not COCO's runs")
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            if code & 16:
                value -= 1 << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return np.array(counts, np.int64)
