"""Pictures in a folder of one's own with the masks that a labelling tool exported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from surgdino.datasets.adapter import Adapter
from surgdino.datasets.drawings import Drawing
from surgdino.datasets.drawn_pictures import (
    DrawnPicture,
    Export,
    as_films,
    labels_of,
    object_labels_of,
    objects_of,
)
from surgdino.datasets.files import is_image, is_video, letters, name_of, plain_name, walk
from surgdino.datasets.labelled_pictures import Picture
from surgdino.datasets.manifest import Labels, Problem
from surgdino.datasets.mask_exports import SUFFIXES, read_export
from surgdino.datasets.masks import FrameMasks, Mask, VideoMasks
from surgdino.datasets.objects import OBJECTS, FrameInstances, VideoInstances
from surgdino.errors import SurgdinoError

_MOST_CLASSES = 254
_UNSAID = ("foreground",)  # the card's classes where the user has named none


def find_exports(adapter: Adapter, named: Path | None) -> list[Export]:
    """What labelling tools exported of the pictures in the folder, or of frames of its videos.

    Args:
        named: the file or folder that the user names; otherwise every such file in the folder is looked at. Beside
            videos, those that cannot be read may be another program's, and draw a warning alone.
    """
    here = [path for _, files in walk(adapter.root) for path in files]
    found = here
    if named is not None:
        found = [path for _, files in walk(named) for path in files] if named.is_dir() else [named]
    of_videos = any(map(is_video, here))
    if not of_videos and not any(map(is_image, here)):
        return []
    exports = []
    for path in found:
        if path.suffix.lower() in SUFFIXES:
            try:
                export = read_export(path)
            except SurgdinoError as error:
                severity: Literal["error", "warning"] = "warning" if of_videos and named is None else "error"
                adapter.problems.append(replace(Problem.of(error), severity=severity))
                continue
            if export is not None:
                exports.append(as_films(export) if of_videos else export)
    for export in [export for export in exports if of_videos and not (export.films or export.pictures)]:
        exports.remove(export)  # phases, perhaps
        adapter.problems += [each for each in export.problems.values() if each.found != "timelinelabels"]
    films = [export for export in exports if export.films]
    return films or (exports if named is not None or not of_videos else [])


def read_exports(adapter: Adapter, exports: Sequence[Export]) -> tuple[list[Picture], list[Labels]]:
    """The folder's pictures with the masks that the exports draw on them."""
    pictures = list(_pictures(adapter.root))
    known = _spellings(pictures)
    drawn = labels_of(exports)
    classes = classes_of(adapter, exports, drawn)
    values: dict[str, VideoMasks] = {}
    objects: dict[str, VideoInstances] = {}
    of_objects = classes_of(adapter, exports, object_labels_of(exports))
    unknown: list[tuple[Export, DrawnPicture]] = []
    for export in exports:
        for entry in export.pictures:
            picture = next((known[name] for name in entry.names if name in known), None)
            if picture is None:
                unknown.append((export, entry))
            elif entry.objects and picture.name in objects and objects[picture.name].frames[0].objects:
                export.tell("a picture that another export names too", entry.place, "each once", entry.name)
            else:
                if entry.shapes:
                    files = drawings(export, entry, classes)
                    values[picture.name] = VideoMasks({0: FrameMasks(picture.path, files)}, classes)
                if entry.objects or picture.name not in objects:
                    objects[picture.name] = VideoInstances({0: objects_of(export, entry, of_objects)}, of_objects)
    if unknown:
        export, entry = unknown[0]
        what, fix = (
            f"{len(unknown)} pictures of the export are not here",
            "copy them, with the names that the tool knew",
        )
        adapter.problem("error", what, export.path, place=entry.place, expected=entry.name, fix=fix)
    bare = len(pictures) - len(values)
    if bare and values:
        first = next(picture for picture in pictures if picture.name not in values)
        what, fix = f"{bare} of {len(pictures)} pictures have no outline", "they are used in pretraining only"
        adapter.problem("warning", what, first.path, fix=fix)
    tools = ", ".join(dict.fromkeys(export.tool for export in exports))
    source = exports[0].path.name if len(exports) == 1 else f"{len(exports)} files"
    shapes = sum(len(s) for e in exports for p in e.pictures for s in p.shapes.values())
    understood = f"{shapes:,} masks of {len(classes)} classes, {len(values):,} of {len(pictures):,} pictures"
    adapter.notes.append(f"{source} ({tools}): {understood}: {', '.join(classes)}")
    adapter.notes += boxes_alone([frame for each in objects.values() for frame in each.frames.values()])
    adapter.problems += [problem for export in exports for problem in export.problems.values()]
    adapter.problems += near_spellings(drawn, exports[0].path)
    return pictures, [Labels("masks", classes, values), *objects_labels(of_objects, objects)]


def boxes_alone(frames: Sequence[FrameInstances]) -> list[str]:
    """A note on objects without a mask, where there are any."""
    found = [each.label for frame in frames for each in frame.objects if not each.shapes]
    return [f"{len(found):,} boxes without a mask: {', '.join(sorted(set(found)))}"] if found else []


def objects_labels(classes: Sequence[str], values: Mapping[str, VideoInstances]) -> list[Labels]:
    """As labels, where there is any class."""
    return [Labels(OBJECTS, tuple(classes), values)] if classes else []


def classes_of(adapter: Adapter, exports: Sequence[Export], drawn: Sequence[str]) -> tuple[str, ...]:
    """The card's classes where the user named them, otherwise those that are drawn.

    Raises:
        SurgdinoError: there are too many.
    """
    named = adapter.card.mask_classes
    classes = named if named != _UNSAID else tuple(drawn)
    if len(classes) > _MOST_CLASSES:
        what, expected = "too many classes", f"at most {_MOST_CLASSES}"
        fix = "name those that count: 'dataset.mask_classes=[...]'"
        raise SurgdinoError(what, file=exports[0].path, expected=expected, found=len(classes), fix=fix)
    return classes


def drawings(export: Export, entry: DrawnPicture, classes: Sequence[str]) -> dict[str, Mask | None]:
    """Class -> what is drawn of it on one picture; labels of no class are reported."""
    for label in entry.shapes:
        if label not in classes:
            export.tell("unknown label", entry.place, "one of dataset.mask_classes", label)
    drawn = {
        label: Drawing(export.path, f"{entry.place}, {label}", entry.size, tuple(shapes))
        for label, shapes in entry.shapes.items()
    }
    return {name: drawn.get(name) for name in classes}


def _pictures(root: Path) -> Iterator[Picture]:
    """Every picture below `root`; a folder that holds all of them is not part of their names."""
    paths = [path for _, files in walk(root) for path in files if is_image(path)]
    tops = {path.relative_to(root).parts[0] for path in paths}
    top = root / tops.pop() if len(tops) == 1 and all(path.parent != root for path in paths) else root
    for path in paths:
        yield Picture(name_of(path, top), path, top, "")


def _spellings(pictures: Sequence[Picture]) -> dict[str, Picture]:
    """Every way to name a picture that means just one."""
    found: dict[str, set[int]] = {}
    for place, picture in enumerate(pictures):
        inside = plain_name(picture.path.relative_to(picture.top).as_posix())
        for name in (inside, f"{picture.top.name}/{inside}", picture.path.name):
            found.setdefault(plain_name(name), set()).add(place)
    return {name: pictures[places.pop()] for name, places in found.items() if len(places) == 1}


def near_spellings(names: Sequence[str], path: Path) -> list[Problem]:
    """A warning for labels that differ in case, spaces, marks or accents alone: probably they are one class."""
    seen: dict[str, str] = {}
    problems = []
    for name in names:
        first = seen.setdefault(letters(name) or name, name)
        if first != name:
            what, fix = f"two spellings of one label: {first!r} and {name!r}", "write it in one way everywhere"
            problems.append(Problem("warning", what, path, None, first, name, fix))
    return problems
