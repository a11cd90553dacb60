"""What a labelling tool's export says of pictures: their names, sizes and shapes by class, and what cannot be used."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

import numpy as np

from surgdino.datasets.drawings import Outline, Shape
from surgdino.datasets.files import plain_name
from surgdino.datasets.manifest import Problem
from surgdino.datasets.objects import FrameInstances, Instance

AGAIN = "correct it in the labelling tool and export it again"
MOST_SIDE = 65_536  # pixels
_MOST_NUMBER = 1e9
_OUTSIDE = 2.0  # pixels that an outline may lie outside of its picture: hands slip at the edge
_FRAME = re.compile(r"(?:^|/)frame_(\d{6,9})(?:\.\w+)?$", re.IGNORECASE)  # as CVAT calls the frames of a video
_MARK = re.compile(r"^[0-9a-f]{8}-")  # Label Studio puts it before a file's name


@dataclass
class DrawnObject:
    """One object that is drawn on a picture, as `surgdino.datasets.objects.Instance`."""

    label: str
    shapes: list[Shape] = field(default_factory=list)
    box: tuple[float, float, float, float] | None = None
    crowd: bool = False


@dataclass
class DrawnPicture:
    """What an export says of one picture.

    Attributes:
        name: as the export calls it, a path with `/`.
        size: (width, height) in pixels; (0, 0) where the export does not say it.
        place: where in the export, for messages.
        shapes: class -> its shapes.
        objects: the same shapes object by object, and objects with a box alone.
    """

    name: str
    size: tuple[int, int]
    place: str
    shapes: dict[str, list[Shape]] = field(default_factory=dict)
    objects: dict[object, DrawnObject] = field(default_factory=dict)

    def add(self, label: str, shape: Shape, key: object = None) -> None:
        """One more shape of a class; those of one `key` are one object, and one without is an object of its own."""
        self.shapes.setdefault(label, []).append(shape)
        self.object(label, key).shapes.append(shape)

    def object(self, label: str, key: object = None) -> DrawnObject:
        """The object of that class and key, new where there was none."""
        place = (label, len(self.objects)) if key is None else (label, "key", key)
        return self.objects.setdefault(place, DrawnObject(label))

    @property
    def names(self) -> Iterator[str]:
        """How the picture's file may be called."""
        yield from plain_source(self.name)


@dataclass
class Film:
    """What an export says of the frames of one video.

    Attributes:
        names: what it may be called.
        size: (width, height) in pixels; None where the export does not say it.
        frames: frame number, from 0, -> what is drawn on it.
    """

    names: tuple[str, ...]
    size: tuple[int, int] | None = None
    frames: dict[int, DrawnPicture] = field(default_factory=dict)

    def frame(self, number: int, place: str) -> DrawnPicture:
        """One frame, new where nothing was drawn on it before."""
        if number not in self.frames:
            self.frames[number] = DrawnPicture("", self.size or (0, 0), place)
        return self.frames[number]


@dataclass
class Export:
    """One export file.

    Attributes:
        path: the file.
        tool: that wrote it.
        pictures: in their order.
        films: frames of videos, where the export is of those.
        sources: what the export says its pictures were taken from.
        problems: what cannot be used; the first of each kind.
        classes: what objects may be, whether or not any is drawn.
    """

    path: Path
    tool: str
    pictures: list[DrawnPicture] = field(default_factory=list)
    films: list[Film] = field(default_factory=list)
    sources: tuple[str, ...] = ()
    problems: dict[str, Problem] = field(default_factory=dict)
    classes: set[str] = field(default_factory=set)

    def tell(self, what: str, place: str, expected: object, found: object, *, error: bool = True) -> None:
        """Report what cannot be used."""
        severity = "error" if error else "warning"
        self.problems.setdefault(what, Problem(severity, what, self.path, place, expected, found, AGAIN))  # type: ignore[arg-type]

    def picture(self, name: object, width: object, height: object, place: str) -> DrawnPicture | None:
        """A picture of the export, or None where it has no name or no size."""
        if not isinstance(name, str) or not name:
            self.tell("a picture without a name", place, "the name of its file", repr(name))
            return None
        sides = [int(side) for side in (width, height) if isinstance(side, int | float) and 1 <= side <= MOST_SIDE]
        if len(sides) < 2:
            self.tell("a picture without a size", place, "its width and height in pixels", f"{width!r} x {height!r}")
            return None
        self.pictures.append(DrawnPicture(plain_name(name.replace("\\", "/")), (sides[0], sides[1]), place))
        return self.pictures[-1]

    def outline(self, picture: DrawnPicture, label: str, points: object, place: str, key: object = None) -> None:
        """Add a polygon of [[x, y], ...] or [x, y, x, y, ...] in pixels; `key` as in `DrawnPicture.add`."""
        shape = self.outline_of(picture, points, place)
        if shape is not None:
            picture.add(label, shape, key)

    def box_of(self, picture: DrawnPicture, box: object, place: str) -> tuple[float, float, float, float] | None:
        """A box of left, top, width and height in pixels, or None where it is none; what is wrong with it is told."""
        numbers = box if isinstance(box, list | tuple) else []
        if len(numbers) != 4 or any(isinstance(n, bool) or not isinstance(n, int | float) for n in numbers):
            self.tell("not a box", place, "left, top, width and height in pixels", str(box)[:60])
            return None
        size = picture.size if any(picture.size) else (MOST_SIDE, MOST_SIDE)
        left, top, width, height = (float(min(max(n, -_MOST_NUMBER), _MOST_NUMBER)) for n in numbers)
        if width < 0 or height < 0:
            self.tell("a box of negative size", place, "left, top, width and height in pixels", str(box)[:60])
        elif not width or not height:
            self.tell("boxes without extent are left out", place, "a width and a height", str(box)[:60], error=False)
        elif min(left, top) < -_OUTSIDE or (np.array([left + width, top + height]) > np.add(size, _OUTSIDE)).any():
            self.tell("a box outside of its picture", place, "inside {}x{}".format(*size), str(box)[:60])
        else:
            return left, top, width, height
        return None

    def outline_of(
        self, picture: DrawnPicture, points: object, place: str, outside: float = _OUTSIDE
    ) -> Outline | None:
        """That polygon, or None where it is none; `outside` is how far it may leave its picture, in pixels."""
        try:
            found = np.asarray(points, np.float64).reshape(-1, 2)
        except (ValueError, TypeError, OverflowError):
            self.tell("not an outline", place, "pairs of x and y", f"{str(points)[:40]}")
            return None
        size = picture.size if any(picture.size) else (MOST_SIDE, MOST_SIDE)
        inside = ((found >= -outside) & (found <= np.add(size, outside))).all(1)  # false of NaN
        if len(found) < 3:
            self.tell("an outline of less than three points", place, "three points or more", len(found), error=False)
        elif not inside.all():
            expected = "points inside {}x{}".format(*size)
            self.tell("an outline outside of its picture", place, expected, "{:g}, {:g}".format(*found[~inside][0]))
        else:
            return Outline(found)
        return None

    def label(self, name: object, place: str) -> str | None:
        """A class's name, or None where there is none."""
        text = plain_name(" ".join(name.split())) if isinstance(name, str) else ""
        if not text:
            self.tell("a shape without a label", place, "the name of a class", repr(name))
        return text or None

    def no_mask(self, kind: object, place: str) -> None:
        """Report a shape that is no mask, such as a box or a point."""
        self.tell("shapes that are no masks are left out", place, "outlines or masks", str(kind)[:40], error=False)


@lru_cache(maxsize=1 << 14)  # tables name a video in each row
def plain_source(text: str) -> tuple[str, ...]:
    """How a file may be called that an export names so: its path, its name, and what Label Studio made them of."""
    text = plain_name(text.replace("\\", "/"))
    paths = dict.fromkeys((text, unquote(text), unquote(text.partition("?d=")[2])))
    last = {path: PurePosixPath(path).name for path in paths}
    return tuple(filter(None, (name for path in paths for name in (path, last[path], _MARK.sub("", last[path])))))


def object_labels_of(exports: Sequence[Export]) -> list[str]:
    """The classes that an object may be, whether drawn or only listed, in alphabetical order."""
    pictures = [p for e in exports for p in (*e.pictures, *(p for film in e.films for p in film.frames.values()))]
    drawn = {each.label for picture in pictures for each in picture.objects.values()}
    return sorted(drawn.union(*(export.classes for export in exports)))


def labels_of(exports: Sequence[Export]) -> list[str]:
    """The classes that are drawn anywhere, in alphabetical order."""
    films = [film for export in exports for film in export.films]
    pictures = [picture for each in exports for picture in each.pictures] + [
        p for f in films for p in f.frames.values()
    ]
    return sorted({label for picture in pictures for label in picture.shapes})


def objects_of(export: Export, drawn: DrawnPicture, classes: Sequence[str]) -> FrameInstances:
    """The objects of these classes on one picture; labels of no class are reported."""
    found = [Instance(o.label, tuple(o.shapes), o.box, o.crowd) for o in drawn.objects.values() if o.shapes or o.box]
    for label in dict.fromkeys(each.label for each in found if each.label not in classes):
        export.tell("unknown label", drawn.place, "one of dataset.mask_classes", label)
    return FrameInstances(export.path, drawn.place, tuple(o for o in found if o.label in classes), drawn.size)


def frame_number(name: str) -> int | None:
    """Of a picture that a tool has taken from a video; None of other pictures."""
    found = _FRAME.search(name)
    return int(found[1]) if found else None


def as_films(export: Export) -> Export:
    """The same export; pictures that are called `frame_000025` are the frames of a video."""
    frames = {n: each for each in export.pictures if (n := frame_number(each.name)) is not None}
    if export.pictures and len(frames) == len(export.pictures):
        export.films.append(Film(export.sources, export.pictures[0].size, frames))
        export.pictures = []
    return export
