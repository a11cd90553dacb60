"""Objects in COCO's form: a truth with images, categories and annotations, and results, a list of what was found.

What comes from people is checked to the last number before pycocotools reads it, whose C code trusts its input. Images
and categories are numbered anew, from 1 and in the order of their ids, so that no id means anything but a place.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from surgdino.datasets.drawings import coco_counts
from surgdino.datasets.files import plain_name
from surgdino.errors import SurgdinoError
from surgdino.paths import atomic_write, write_text
from surgdino.records import read_json

PIXEL, SCORE = 2, 6  # decimals that are written, and scored
_LIMIT = 1 << 30  # bytes
_MOST_SIDE, _MOST_NUMBER = 65_536, 1e9
_FIX = "write it in COCO's form (cocodataset.org, data format)"
Row = dict[str, Any]


@dataclass(frozen=True)
class Truth:
    """What is in the images, in COCO's form.

    Attributes:
        images: rows with `id` 1 to n, `file_name`, `width`, `height`.
        classes: names in the order of their ids, 1 to C.
        annotations: rows with `id`, `image_id`, `category_id`, `bbox`, `area`, `iscrowd`, perhaps `segmentation`.
        image_ids, category_ids: id in the file -> id here.
    """

    images: list[Row]
    classes: tuple[str, ...]
    annotations: list[Row]
    image_ids: Mapping[object, int] = field(default_factory=dict, repr=False)
    category_ids: Mapping[object, int] = field(default_factory=dict, repr=False)

    def write(self, path: Path) -> Path:
        """The file that `read_truth` reads."""
        categories = [{"id": place, "name": name} for place, name in enumerate(self.classes, start=1)]
        content = {"images": self.images, "categories": categories, "annotations": self.annotations}
        return write_text(path, json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n")


def write_results(path: Path, rows: Iterable[Row]) -> Path:
    """Results as JSON, a line a detection, written as they come: there may be a whole video's."""
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        before = "["
        for row in rows:
            file.write(f"{before}\n{json.dumps({key: value for key, value in row.items() if key != 'area'})}")
            before = ","
        file.write("[]\n" if before == "[" else "\n]\n")
    return path


def as_runs(mask: np.ndarray) -> Row:
    """bool [H, W] as COCO's compressed runs."""
    from pycocotools.mask import encode

    found = encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in found["size"]], "counts": found["counts"].decode("ascii")}


def from_runs(runs: Row) -> np.ndarray:
    """bool [H, W] of what `as_runs` gave."""
    from pycocotools import mask as masks

    return masks.decode({**runs, "counts": runs["counts"].encode("ascii")}).astype(bool)


def read_truth(path: Path) -> Truth:
    """A file with images, categories and annotations.

    Raises:
        SurgdinoError: it is malformed; the row, what it should hold and what it holds are named.
    """
    content = read_json(path, _LIMIT, _FIX)
    lists = [
        content.get(name) if isinstance(content, dict) else None for name in ("images", "categories", "annotations")
    ]
    if not all(isinstance(each, list) for each in lists):
        _refuse("not COCO's form", path, None, "images, categories and annotations", type(content).__name__)
    images, categories, rows = (each or [] for each in lists)
    if not images or not categories:
        _refuse(
            "nothing to score", path, None, "at least one image and one category", f"{len(images)}, {len(categories)}"
        )
    by_id = _by_id(path, images, "images")
    kinds = _by_id(path, categories, "categories")
    named = [_image(path, place, row) for place, row in by_id.values()]
    for number, row in enumerate(named, start=1):
        row["id"] = number
    classes = [_name(path, place, row) for place, row in kinds.values()]
    if len(set(classes)) < len(classes):
        twice = next(name for name in classes if classes.count(name) > 1)
        _refuse("two categories of one name", path, "categories", "names that differ", twice)
    image_ids = {key: number for number, key in enumerate(by_id, start=1)}
    category_ids = {key: number for number, key in enumerate(kinds, start=1)}
    truth = Truth(named, tuple(classes), [], image_ids, category_ids)
    for number, (place, row) in enumerate(_rows(path, rows, "annotations"), start=1):
        found = _shape(path, place, row, truth)
        crowd = row.get("iscrowd", 0)
        if type(crowd) not in (int, bool) or crowd not in (0, 1):
            _refuse("neither one object nor a crowd", path, place, "iscrowd of 0 or 1", repr(crowd))
        if row.get("area") is not None:
            found["area"] = _number(path, f"{place}, area", row["area"], 0)
        truth.annotations.append({"id": number, **found, "iscrowd": int(crowd)})
    return truth


def read_found(path: Path, truth: Truth) -> list[Row]:
    """A file of results: a list of rows with `image_id`, `category_id`, `score`, and `bbox` or `segmentation`.

    Raises:
        SurgdinoError: as `read_truth`, and for images and categories that the truth does not have.
    """
    content = read_json(path, _LIMIT, _FIX)
    if not isinstance(content, list):
        _refuse("not COCO's results", path, None, "a list of rows, one a detection", type(content).__name__)
    found = []
    for place, row in _rows(path, content, ""):
        each = _shape(path, place, row, truth)
        score = _number(path, f"{place}, score", row.get("score"))
        found.append({**each, "score": score})
    return found


def _rows(path: Path, rows: Sequence[object], name: str) -> Iterator[tuple[str, Row]]:
    for number, row in enumerate(rows):
        place = f"{name}[{number}]" if name else f"row {number + 1}"
        if not isinstance(row, dict):
            _refuse("not a row", path, place, "keys and values", repr(row)[:40])
        yield place, row


def _by_id(path: Path, rows: Sequence[object], name: str) -> dict[object, tuple[str, Row]]:
    """Id -> (place, row), by ascending id, as pycocotools takes them."""
    found: dict[Any, tuple[str, Row]] = {}
    for place, row in _rows(path, rows, name):
        key = row.get("id")
        if type(key) is not int or not -(2**53) < key < 2**53:
            _refuse("no id", path, place, "a whole number", repr(key)[:40])
        if key in found:
            _refuse("an id twice", path, place, f"another one than {found[key][0]}", key)
        found[key] = place, row
    return dict(sorted(found.items()))


def _image(path: Path, place: str, row: Row) -> Row:
    sides = [row.get("width"), row.get("height")]
    if any(type(side) is not int or not 1 <= side <= _MOST_SIDE for side in sides):
        _refuse("an image without its size", path, place, "width and height in pixels", f"{sides[0]!r} x {sides[1]!r}")
    if not isinstance(row.get("file_name"), str) or not row["file_name"]:
        _refuse("an image without a name", path, place, "file_name", repr(row.get("file_name"))[:40])
    return {
        "id": 0,
        "file_name": plain_name(row["file_name"].replace("\\", "/")),
        "width": sides[0],
        "height": sides[1],
    }


def _name(path: Path, place: str, row: Row) -> str:
    name = row.get("name")
    text = plain_name(" ".join(name.split())) if isinstance(name, str) else ""
    if not text:
        _refuse("a category without a name", path, place, "name", repr(name)[:40])
    return text


def _shape(path: Path, place: str, row: Row, truth: Truth) -> Row:
    """`image_id`, `category_id`, `bbox`, `area`, and `segmentation` where there is one."""
    ids = []
    for key, known, what in (
        ("image_id", truth.image_ids, "of an image that is not among them"),
        ("category_id", truth.category_ids, "of a category that is not among them"),
    ):
        value = row.get(key)
        if type(value) is not int or value not in known:
            shown = ", ".join(map(str, list(known)[:5])) + (", ..." if len(known) > 5 else "")
            _refuse(what, path, f"{place}, {key}", f"one of {shown}", repr(value)[:40])
        ids.append(known[value])
    image, box, shape = truth.images[ids[0] - 1], row.get("bbox"), row.get("segmentation")
    found: Row = {"image_id": ids[0], "category_id": ids[1]}
    if shape not in (None, []):
        found["segmentation"] = _mask(path, f"{place}, segmentation", shape, image)
        from pycocotools import mask as masks

        runs = found["segmentation"]
        found["area"] = float(masks.area(runs))
        found["bbox"] = [float(side) for side in masks.toBbox(runs)]
    if box not in (None, []):
        numbers = box if isinstance(box, list) and len(box) == 4 else [None]
        try:
            sides = [_number(path, f"{place}, bbox", n) for n in numbers]
        except SurgdinoError:
            sides = []
        if not sides or min(sides[2:]) < 0:
            _refuse("not a box", path, f"{place}, bbox", "left, top, width and height, not negative", repr(box)[:60])
        found["bbox"] = sides
        found.setdefault("area", sides[2] * sides[3])
    if "bbox" not in found:
        _refuse("neither a box nor a mask", path, place, "bbox or segmentation", ", ".join(map(str, row))[:60])
    return found


def _mask(path: Path, place: str, shape: object, image: Row) -> Row:
    """Polygons or runs as compressed runs, as pycocotools makes them."""
    from pycocotools import mask as masks

    height, width = image["height"], image["width"]
    if isinstance(shape, list):
        for points in shape:
            whole = isinstance(points, list) and len(points) >= 6 and len(points) % 2 == 0
            numbers = [n for n in points if type(n) in (int, float) and abs(n) <= 2 * _MOST_SIDE] if whole else []
            if not whole or len(numbers) < len(points):
                _refuse("not an outline", path, place, "x, y of three points or more, in pixels", repr(points)[:60])
        runs = masks.merge(masks.frPyObjects(shape, height, width))
        return {"size": [height, width], "counts": runs["counts"].decode("ascii")}
    if not isinstance(shape, dict) or shape.get("size") != [height, width]:
        found = shape.get("size") if isinstance(shape, dict) else shape
        _refuse("a mask of another size than its image", path, place, f"size [{height}, {width}]", repr(found)[:60])
    counts = shape.get("counts")
    try:
        lengths = coco_counts(counts) if isinstance(counts, str) else np.array(counts, dtype=np.int64)
        fits = lengths.ndim == 1 and (lengths >= 0).all() and (lengths <= height * width).all()
    except (ValueError, TypeError, OverflowError):
        fits = False
    if isinstance(counts, list) and any(type(n) is not int for n in counts):
        fits = False
    if not fits or lengths.sum() != height * width:
        _refuse(
            "runs that do not fill their image", path, place, f"{height * width} pixels together", repr(counts)[:60]
        )
    runs = masks.frPyObjects({"size": [height, width], "counts": lengths.tolist()}, height, width)
    return {"size": [height, width], "counts": runs["counts"].decode("ascii")}


def _number(path: Path, place: str, value: object, low: float = -_MOST_NUMBER) -> float:
    if type(value) not in (int, float) or not low <= value <= _MOST_NUMBER:  # type: ignore[operator]
        _refuse("not a number", path, place, f"from {low:g} to {_MOST_NUMBER:g}", repr(value)[:40])
    return float(value)  # type: ignore[arg-type]


def _refuse(what: str, path: Path, place: str | None, expected: str, found: object) -> NoReturn:
    raise SurgdinoError(what, file=path, place=place, expected=expected, found=found, fix=_FIX)
