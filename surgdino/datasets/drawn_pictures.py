"""What a labelling tool's export says of pictures: their names, sizes and shapes by class, and what cannot be used."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

import numpy as np

from surgdino.datasets.drawings import Outline, Shape
from surgdino.datasets.files import plain_name
from surgdino.datasets.manifest import Problem

AGAIN = "correct it in the labelling tool and export it again"
_MOST_SIDE = 65_536  # pixels
_OUTSIDE = 2.0  # pixels that an outline may lie outside of its picture: hands slip at the edge
_MARK = re.compile(r"^[0-9a-f]{8}-")  # Label Studio puts it before a file's name


@dataclass
class DrawnPicture:
    """What an export says of one picture.

    Attributes:
        name: as the export calls it, a path with `/`.
        size: (width, height) in pixels.
        place: where in the export, for messages.
        shapes: class -> its shapes.
    """

    name: str
    size: tuple[int, int]
    place: str
    shapes: dict[str, list[Shape]] = field(default_factory=dict)

    def add(self, label: str, shape: Shape) -> None:
        """One more shape of a class."""
        self.shapes.setdefault(label, []).append(shape)

    @property
    def names(self) -> Iterator[str]:
        """How the picture's file may be called: its path, its name, and what Label Studio made them of."""
        for name in dict.fromkeys((self.name, unquote(self.name), unquote(self.name.partition("?d=")[2]))):
            last = PurePosixPath(name).name
            yield from filter(None, (name, last, _MARK.sub("", last)))


@dataclass
class Export:
    """One export file.

    Attributes:
        path: the file.
        tool: that wrote it.
        pictures: in their order.
        problems: what cannot be used; the first of each kind.
    """

    path: Path
    tool: str
    pictures: list[DrawnPicture] = field(default_factory=list)
    problems: dict[str, Problem] = field(default_factory=dict)

    def tell(self, what: str, place: str, expected: object, found: object, *, error: bool = True) -> None:
        """Report what cannot be used."""
        severity = "error" if error else "warning"
        self.problems.setdefault(what, Problem(severity, what, self.path, place, expected, found, AGAIN))  # type: ignore[arg-type]

    def picture(self, name: object, width: object, height: object, place: str) -> DrawnPicture | None:
        """A picture of the export, or None where it has no name or no size."""
        if not isinstance(name, str) or not name:
            self.tell("a picture without a name", place, "the name of its file", repr(name))
            return None
        sides = [int(side) for side in (width, height) if isinstance(side, int | float) and 1 <= side <= _MOST_SIDE]
        if len(sides) < 2:
            self.tell("a picture without a size", place, "its width and height in pixels", f"{width!r} x {height!r}")
            return None
        self.pictures.append(DrawnPicture(plain_name(name.replace("\\", "/")), (sides[0], sides[1]), place))
        return self.pictures[-1]

    def outline(self, picture: DrawnPicture, label: str, points: object, place: str) -> None:
        """Add a polygon of [[x, y], ...] or [x, y, x, y, ...] in pixels."""
        try:
            found = np.asarray(points, np.float64).reshape(-1, 2)
        except (ValueError, TypeError, OverflowError):
            self.tell("not an outline", place, "pairs of x and y", f"{str(points)[:40]}")
            return
        inside = ((found >= -_OUTSIDE) & (found <= np.add(picture.size, _OUTSIDE))).all(1)  # false of NaN
        if len(found) < 3:
            self.tell("an outline of less than three points", place, "three points or more", len(found), error=False)
        elif not inside.all():
            expected = "points inside {}x{}".format(*picture.size)
            self.tell("an outline outside of its picture", place, expected, "{:g}, {:g}".format(*found[~inside][0]))
        else:
            picture.add(label, Outline(found))

    def label(self, name: object, place: str) -> str | None:
        """A class's name, or None where there is none."""
        text = plain_name(" ".join(name.split())) if isinstance(name, str) else ""
        if not text:
            self.tell("a shape without a label", place, "the name of a class", repr(name))
        return text or None

    def no_mask(self, kind: object, place: str) -> None:
        """Report a shape that is no mask, such as a box or a point."""
        self.tell("shapes that are no masks are left out", place, "outlines or masks", str(kind)[:40], error=False)


def labels_of(exports: Iterable[Export]) -> list[str]:
    """The classes that are drawn anywhere, in alphabetical order."""
    return sorted({label for export in exports for picture in export.pictures for label in picture.shapes})
