"""CVAT's XML: `images 1.1` with shapes on pictures, `video 1.1` with tracks of shapes over a film's frames.

Frames are numbered as in the film itself: `start_frame`, and then every `step`. A track holds its last shape until the
next one, with positions in between where both are outlines of as many points; `outside` ends it for a while.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from xml.parsers import expat

import numpy as np

from surgdino.datasets.drawings import Outline, Runs, Shape
from surgdino.datasets.drawn_pictures import AGAIN, MOST_SIDE, DrawnPicture, Export, Film, frame_number
from surgdino.errors import SurgdinoError

_SHAPES = ("polygon", "mask", "ellipse", "box", "points", "polyline", "cuboid", "skeleton")
_DEEPEST, _LONGEST = 32, 1000  # elements inside each other, characters of a name
_CORNERS = 72  # of the polygon that stands for an ellipse
_MOST_FRAMES = 10**8
_MOST_BETWEEN = 2_000_000  # shapes that are not in the file but follow from those that are: 20 hours of a track


def read_cvat(path: Path, content: bytes) -> Export | None:
    """What the file holds, or None where it is another tool's.

    Raises:
        SurgdinoError: not XML, or with entities; too many frames.
    """
    export, elements = Export(path, "CVAT"), list(_elements(path, content))
    if not elements or elements[0][0] != ("annotations",):
        return None
    tasks = _tasks(elements)
    _without_offsets(tasks, elements)
    picture: DrawnPicture | None = None
    track: _Track | None = None
    tracks: list[_Track] = []
    for parents, values in elements:
        name, inside = parents[-1], parents[1:2]
        if name == "track" and len(parents) == 2:
            track = _Track(export, values, tasks)
            tracks.append(track)
        elif name == "image" and len(parents) == 2:
            width, height = _number(values.get("width")), _number(values.get("height"))
            picture = export.picture(values.get("name"), width, height, f"image {values.get('id', '')}")
        elif name in _SHAPES and inside == ("track",) and len(parents) == 3 and track:
            track.add(name, values)
        elif name in _SHAPES and inside == ("image",) and len(parents) == 3 and picture:
            place = f"{picture.place}, {name}"
            label = export.label(values.get("label"), place)
            shape = _shape(export, picture, name, values, place) if label is not None else None
            if label is not None and shape is not None:
                _add(picture, label, shape)
    if tracks:
        export.films += [task.film for task in tasks.values()]
        between = 0
        for track in tracks:
            between += track.fill(_MOST_BETWEEN - between)
    else:
        export.sources = tuple(name for task in tasks.values() for name in task.film.names)
    return export


def frame_tags(path: Path, content: bytes) -> Iterator[tuple[str, int, str]]:
    """(video, frame number, label) of each tag on a frame of a video; the name may be empty.

    Raises:
        SurgdinoError: not XML, or with entities.
    """
    elements = list(_elements(path, content))
    if not elements or elements[0][0] != ("annotations",):
        return
    sources = [name for task in _tasks(elements).values() for name in task.film.names]
    frame: int | None = None
    for parents, values in elements:
        if parents[1:] == ("image",):
            frame = frame_number(values.get("name", ""))
        elif parents[1:] == ("image", "tag") and frame is not None:
            yield sources[0] if sources else "", frame, values.get("label", "")


class _Task:
    """What the head of the file says of one film: its name, size and frames; `offset` is what they are counted from."""

    offset = 0

    def __init__(self, values: Mapping[str, str]) -> None:
        start, stop = (_number(values.get(key)) for key in ("start_frame", "stop_frame"))
        step = re.search(r"step\s*=\s*(\d{1,8})", values.get("frame_filter", ""))
        width, height = (_number(values.get(key)) for key in ("width", "height"))
        count = _number(values.get("size"))
        self.subset, self.count = values.get("subset", ""), int(count) if count and 0 <= count <= _MOST_FRAMES else 0
        self.start = int(start) if start is not None and 0 <= start <= _MOST_FRAMES else 0
        self.stop = int(stop) if stop is not None and 0 <= stop <= _MOST_FRAMES else None
        self.step = max(int(step[1]), 1) if step else 1
        self.film = Film(tuple(filter(None, (values.get("source"),))))
        if width and height and 1 <= min(width, height) <= max(width, height) <= MOST_SIDE:
            self.film.size = (int(width), int(height))

    def has(self, frame: int) -> bool:
        """Whether that frame was shown to who labelled."""
        return self.start <= frame <= (_MOST_FRAMES if self.stop is None else self.stop) and not (
            (frame - self.start) % self.step
        )

    def __str__(self) -> str:
        steps = f" in steps of {self.step}" if self.step > 1 else ""
        return f"{self.start} to {_MOST_FRAMES if self.stop is None else self.stop}{steps}"


def _tasks(elements: list[tuple[tuple[str, ...], dict[str, str]]]) -> dict[str, _Task]:
    """Task id -> what `meta` says of it; a file of one task or job has one."""
    found: list[dict[str, str]] = []
    above: dict[str, str] = {}
    for parents, values in elements:
        if parents[1:2] != ("meta",):
            continue
        text, of_task = values.get("", "").strip(), [n for n, name in enumerate(parents) if name in ("task", "job")]
        if of_task and of_task[0] == len(parents) - 1:
            found.append({})
        elif of_task and (len(parents) == of_task[0] + 2 or parents[-2] == "original_size"):
            found[-1].setdefault(parents[-1], text)
        elif not of_task:
            above.setdefault(parents[-1], text)
    found = found or [{}]
    return {values.get("id", ""): _Task(values if len(found) > 1 else {**above, **values}) for values in found}


def _without_offsets(tasks: Mapping[str, _Task], elements: list[tuple[tuple[str, ...], dict[str, str]]]) -> None:
    """Newer versions count the frames of a project's tasks on, inside a subset; older ones begin each anew."""
    lowest: dict[str, float] = {}
    task = ""
    for parents, values in elements if len(tasks) > 1 else ():
        if parents[1:] == ("track",):
            task = values.get("task_id", "")
        elif parents[1:2] == ("track",) and (number := _number(values.get("frame"))) is not None:
            lowest[task] = min(number, lowest.get(task, number))
    before: dict[str, int] = {}
    for name, each in tasks.items():
        offset = before.get(each.subset, 0)
        before[each.subset] = offset + each.start + each.step * each.count
        if lowest.get(name, -1) >= offset + each.start:
            each.offset = offset


class _Track:
    """One object over time."""

    def __init__(self, export: Export, values: Mapping[str, str], tasks: Mapping[str, _Task]) -> None:
        self.export, self.place = export, f"track {values.get('id', '')}"
        self.task = tasks.get(values.get("task_id", ""), next(iter(tasks.values())))
        self.label = export.label(values.get("label"), self.place)
        self.shapes: dict[int, Shape | None] = {}
        self.whole = False  # CVAT itself writes what is between key frames, but for frames that were deleted

    def add(self, name: str, values: Mapping[str, str]) -> None:
        """The object on one frame; where it is not to be seen, that it ends there."""
        number, gone = _number(values.get("frame")), values.get("outside") == "1"
        number = number - self.task.offset if number is not None else None
        whole = number is not None and 0 <= number <= _MOST_FRAMES and number == int(number)
        if number is None or not whole or not (gone or self.task.has(int(number))):  # it may end after the task does
            what = "a frame that was not labelled"
            self.export.tell(what, self.place, f"frames {self.task}", str(values.get("frame"))[:40])
            return
        frame, place = int(number), f"{self.place}, frame {int(number)}, {name}"
        self.whole |= values.get("keyframe") == "0"
        if self.label is None or frame in self.shapes:
            return
        if gone:
            self.shapes[frame] = None
        else:
            picture = self.task.film.frame(frame, f"frame {frame}")
            shape = _shape(self.export, picture, name, values, place)
            if shape is not None:
                self.shapes[frame] = shape

    def fill(self, most: int) -> int:
        """Put the shapes on their frames and on those between; how many are between.

        Raises:
            SurgdinoError: they are more than `most`.
        """
        if self.label is None:
            return 0
        frames, task, between = sorted(self.shapes), self.task, 0
        last = task.stop if task.stop is not None else max(frames, default=0)
        for here, end in zip(frames, [*frames[1:], last + 1], strict=False):
            shape, following = self.shapes[here], self.shapes.get(end)
            if shape is None:
                continue
            _add(task.film.frame(here, f"frame {here}"), self.label, shape)
            steps = range(here + task.step, here if self.whole else end, task.step)
            between += len(steps)
            if between > most:
                what, fix = "tracks of too many frames", "export parts of it, each in a file of its own"
                raise SurgdinoError(
                    what, file=self.export.path, place=self.place, found=f"{end - here} frames", fix=fix
                )
            for frame in steps:
                moved = _between(shape, following, (frame - here) / (end - here))
                _add(task.film.frame(frame, f"frame {frame}"), self.label, moved)
        return between


class _Box(Outline):
    """Two corners of a box, which is no mask."""


def _add(picture: DrawnPicture, label: str, shape: Shape) -> None:
    """One more object of a picture or frame."""
    if isinstance(shape, _Box):
        (left, top), (right, low) = shape.points.tolist()
        picture.object(label).box = left, top, right - left, low - top
    else:
        picture.add(label, shape)


def _between(first: Shape, second: Shape | None, share: float) -> Shape:
    """A shape on its way to the next one; it waits where there is no way between the two."""
    if isinstance(first, Outline) and isinstance(second, Outline) and first.points.shape == second.points.shape:
        return type(first)(first.points + (second.points - first.points) * share)
    return first


def _shape(
    export: Export, picture: DrawnPicture, name: str, values: Mapping[str, str], place: str
) -> Outline | Runs | None:
    """One shape of a picture or frame; what is no mask is reported."""
    if name == "polygon":
        points = [[_number(n) for n in pair.split(",")] for pair in values.get("points", "").split(";")]
        return export.outline_of(picture, points, place)
    if name == "ellipse":
        middle, radii, turn = _numbers(values, "cx", "cy"), _numbers(values, "rx", "ry"), _numbers(values, "rotation")
        if middle is None or radii is None:
            export.tell("not an outline", place, "an ellipse's cx, cy, rx, ry", str(dict(values))[:60])
            return None
        angles = np.arange(_CORNERS) * (2 * np.pi / _CORNERS)
        angle = np.deg2rad(turn[0]) if turn else 0.0
        about = np.stack([np.cos(angles) * radii[0], np.sin(angles) * radii[1]], 1)
        turned = about @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        return export.outline_of(picture, turned + middle, place, outside=float(max(radii)))
    if name == "box":
        ends = [_number(values.get(key)) for key in ("xtl", "ytl", "xbr", "ybr")]
        found = [end for end in ends if end is not None]
        sides = [*found[:2], found[2] - found[0], found[3] - found[1]] if len(found) == 4 else ends
        whole = export.box_of(picture, sides, place)
        return (
            None if whole is None else _Box(np.reshape([*whole[:2], whole[0] + whole[2], whole[1] + whole[3]], (2, 2)))
        )
    if name == "mask":
        box = _numbers(values, "left", "top", "width", "height")
        counts = [_number(n) for n in values.get("rle", "").split(",")]
        if box is None or any(n is None or not 0 <= n <= 1e9 for n in (*box, *counts)):
            export.tell("not a mask", place, "runs in a box", values.get("rle", "")[:40])
            return None
        left, top, width, height = (int(n) for n in box)
        return Runs(np.array(counts, np.int64), (left, top, width, height), by_column=False)
    export.no_mask(name, place)
    return None


def _numbers(values: Mapping[str, str], *keys: str) -> list[float] | None:
    found = [_number(values.get(key)) for key in keys]
    known = [n for n in found if n is not None]
    return known if len(known) == len(keys) else None


def _number(text: str | None) -> float | None:
    """None of what is no number, such as `nan` and `inf`."""
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _elements(path: Path, content: bytes) -> Iterator[tuple[tuple[str, ...], dict[str, str]]]:
    """(names of its parents and its own, attributes) of each element in their order; its text has an empty name.

    Raises:
        SurgdinoError: not XML, too deep, or it declares a document type or entities.
    """
    found: list[tuple[tuple[str, ...], dict[str, str]]] = []
    parents: list[str] = []

    def refuse(what: str) -> None:
        expected = "plain elements, as CVAT writes them"
        raise SurgdinoError(what, file=path, expected=expected, fix="export it again")

    def begin(name: str, values: dict[str, str]) -> None:
        parents.append(name)
        if len(parents) > _DEEPEST:
            refuse("an XML file that is nested too deeply")
        found.append((tuple(parents), values))

    def text(some: str) -> None:
        before = found[-1][1].get("", "")
        if parents[1:2] == ["meta"] and len(before) < _LONGEST:
            found[-1][1][""] = before + some

    def declared(*_: object) -> None:
        refuse("an XML file that declares a document type or entities")

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler, parser.CharacterDataHandler = begin, text
    parser.EndElementHandler = lambda name: parents.pop()
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = declared
    try:
        parser.Parse(content, True)
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise SurgdinoError("not valid XML", file=path, found=error, fix=AGAIN) from error
    return iter(found)
