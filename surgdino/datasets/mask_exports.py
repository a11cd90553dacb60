"""Masks and boxes in a labelling tool's export: COCO, CVAT, LabelMe, Label Studio; told apart by their content."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from surgdino.datasets.cvat import read_cvat
from surgdino.datasets.drawings import Brush, Runs, Stamp, coco_counts
from surgdino.datasets.drawn_pictures import AGAIN, DrawnPicture, Export
from surgdino.datasets.files import plain_name
from surgdino.paths import read_bytes
from surgdino.records import parse_json

SUFFIXES = frozenset((".json", ".xml"))
_SIZE_LIMIT = 512 << 20  # bytes; LabelMe may keep the picture in the file


def read_export(path: Path) -> Export | None:
    """What an export holds, or None where the file is something else.

    Raises:
        SurgdinoError: it cannot be read at all: not JSON or XML, too large, too deep, with entities.
    """
    content = read_bytes(path, _SIZE_LIMIT)
    if path.suffix.lower() == ".xml":
        return read_cvat(path, content)
    values = parse_json(content, path, AGAIN)
    rows = values.get("annotations") if isinstance(values, dict) else None
    if isinstance(values, dict) and isinstance(values.get("images"), list) and isinstance(rows, list):
        return _coco(path, values)
    if isinstance(values, dict) and "imagePath" in values and isinstance(values.get("shapes"), list):
        return _labelme(path, values)
    if isinstance(values, list) and values and isinstance(values[0], dict) and "annotations" in values[0]:
        return _label_studio(path, values)
    return None


def _rows(values: object) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The mappings of a list with their places; anything else is passed over as one without keys."""
    rows = values if isinstance(values, list) else []
    yield from ((place, row if isinstance(row, dict) else {}) for place, row in enumerate(rows))


def _coco(path: Path, values: Mapping[str, Any]) -> Export:
    export = Export(path, "COCO")
    pictures = {
        _key(row.get("id")): export.picture(row.get("file_name"), row.get("width"), row.get("height"), f"images[{n}]")
        for n, row in _rows(values["images"])
    }
    names = {_key(row.get("id")): row.get("name") for _, row in _rows(values.get("categories"))}
    for number, row in _rows(values["annotations"]):
        place = f"annotations[{number}]"
        if _key(row.get("image_id")) not in pictures:
            export.tell("an annotation of no picture", place, "the id of one of images", repr(row.get("image_id")))
            continue
        picture = pictures[_key(row.get("image_id"))]
        if _key(row.get("category_id")) not in names:
            found = repr(row.get("category_id"))
            export.tell("an annotation of no class", place, "the id of one of categories", found)
            continue
        label = export.label(names[_key(row.get("category_id"))], place)
        if picture is None or label is None:
            continue
        shape, box, crowd = row.get("segmentation"), row.get("bbox"), row.get("iscrowd", 0)
        if crowd not in (0, 1):
            export.tell("neither one object nor a crowd", place, "iscrowd of 0 or 1", repr(crowd)[:40])
            continue
        if isinstance(shape, dict):
            _coco_runs(export, picture, label, shape, place)
        elif isinstance(shape, list) and shape:
            for points in shape:
                export.outline(picture, label, points, place, key=place)
        elif box is None:
            export.tell("an annotation without box and mask", place, "bbox, or segmentation", "neither")
            continue
        drawn = picture.object(label, place)
        drawn.crowd = bool(crowd)
        if box is not None:
            drawn.box = export.box_of(picture, box, place)
    export.classes = {name for name in map(_plain, names.values()) if name}
    return export


def _coco_runs(export: Export, picture: DrawnPicture, label: str, shape: Mapping[str, Any], place: str) -> None:
    counts, size = shape.get("counts"), shape.get("size")
    try:
        runs = coco_counts(counts) if isinstance(counts, str) else np.asarray(counts, np.int64)
    except (ValueError, TypeError, OverflowError):
        export.tell("not a mask", place, "COCO's runs", str(counts)[:40])
        return
    expected = [picture.size[1], picture.size[0]]
    if size != expected or runs.ndim != 1:
        export.tell("a mask of another size than its picture", place, expected, str(size)[:40])
    else:
        picture.add(label, Runs(runs, (0, 0, *picture.size), by_column=True), place)


def _plain(name: object) -> str:
    return plain_name(" ".join(name.split())) if isinstance(name, str) else ""


def _key(value: object) -> object:
    return value if isinstance(value, int | str) else None


def _labelme(path: Path, values: Mapping[str, Any]) -> Export:
    export = Export(path, "LabelMe")
    picture = export.picture(values["imagePath"], values.get("imageWidth"), values.get("imageHeight"), "imagePath")
    for number, row in _rows(values["shapes"]):
        place, kind, points = f"shapes[{number}]", row.get("shape_type") or "polygon", row.get("points")
        label = export.label(row.get("label"), place)
        if picture is None or label is None:
            continue
        group = _key(row.get("group_id"))  # the outlines of one instrument, where it is seen in parts
        if kind == "polygon":
            export.outline(picture, label, points, place, group)
        elif kind == "rectangle":
            box = _corners(points)
            picture.object(label, group).box = export.box_of(picture, points if box is None else box, place)
        elif kind == "mask":
            try:
                left, top = np.asarray(points, np.float64).reshape(-1, 2)[0]
                stamp = Stamp(base64.b64decode(str(row.get("mask")), validate=True), int(left), int(top))
            except (ValueError, TypeError, IndexError, OverflowError):
                export.tell("not a mask", place, "a corner and a picture", str(points)[:40])
                continue
            picture.add(label, stamp, group)
        else:
            export.no_mask(kind, place)
    return export


def _corners(points: object) -> list[float] | None:
    """LabelMe's rectangle, given by two of its corners or by all four, as left, top, width, height."""
    try:
        corners = np.asarray(points, np.float64).reshape(-1, 2)
    except (ValueError, TypeError, OverflowError):
        return None
    if len(corners) not in (2, 4) or not np.isfinite(corners).all():
        return None
    return [*corners.min(0).tolist(), *np.ptp(corners, 0).tolist()]


def _label_studio(path: Path, tasks: list[Any]) -> Export:
    export = Export(path, "Label Studio")
    for number, task in _rows(tasks):
        place, data = f"task {task.get('id', number)}", task.get("data")
        done = [row for _, row in _rows(task.get("annotations")) if not row.get("was_cancelled")]
        texts = [v for v in data.values() if isinstance(v, str)] if isinstance(data, dict) else []
        if len(done) > 1:
            what = "pictures labelled twice: the first labels count"
            export.tell(what, place, "one annotation", len(done), error=False)
        results = [row for _, row in _rows(done[0].get("result"))] if done else []
        sizes = [(r.get("original_width"), r.get("original_height")) for r in results if "original_width" in r]
        if not sizes:  # nothing is drawn on it
            for row in results:
                export.no_mask(row.get("type"), place)
            continue
        picture = export.picture(texts[0] if texts else None, *sizes[0], place)
        for row in results if picture else []:
            assert picture is not None
            _studio_shape(export, picture, row, f"{place}, {row.get('id', '')}")
    return export


def _studio_shape(export: Export, picture: DrawnPicture, row: Mapping[str, Any], place: str) -> None:
    kind, value = row.get("type"), row.get("value")
    if kind not in ("polygonlabels", "brushlabels", "rectanglelabels") or not isinstance(value, dict):
        return export.no_mask(kind, place)
    if row.get("image_rotation"):
        return export.tell("a rotated picture", place, "pictures as they are", row.get("image_rotation"))
    labels = value.get(kind)
    label = export.label(labels[0] if isinstance(labels, list) and labels else None, place)
    if label is None:
        return None
    if kind == "rectanglelabels":
        if value.get("rotation"):
            return export.tell("a rotated box", place, "upright boxes", str(value.get("rotation"))[:40])
        shares = [value.get(key) for key in ("x", "y", "width", "height")]  # in percent
        whole = all(isinstance(share, int | float) and abs(share) <= 1e6 for share in shares)
        box = (np.array(shares, float) * (picture.size * 2) / 100).tolist() if whole else shares
        picture.object(label).box = export.box_of(picture, box, place)
        return None
    if kind == "polygonlabels":
        try:
            points = np.asarray(value.get("points"), np.float64).reshape(-1, 2) * picture.size / 100
        except (ValueError, TypeError, OverflowError):
            return export.tell("not an outline", place, "pairs of x and y", str(value.get("points"))[:40])
        return export.outline(picture, label, points, place)
    try:
        return picture.add(label, Brush(b"".join(part.to_bytes() for part in value["rle"])))
    except (KeyError, TypeError, AttributeError, OverflowError):
        return export.tell("not a mask", place, "Label Studio's runs, 0 to 255", str(value.get("rle"))[:40])
