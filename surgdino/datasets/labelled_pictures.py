"""Pictures with masks in a folder of one's own: `images/` beside `masks/`, or pictures and what a tool exported."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Literal

from surgdino.datasets.adapter import Adapter
from surgdino.datasets.files import entries, is_image, letters, name_of, plain_name, read_text, walk
from surgdino.datasets.manifest import Labels, Problem
from surgdino.datasets.mask_files import Colour, Layer, Legend
from surgdino.datasets.masks import FrameMasks, VideoMasks
from surgdino.errors import SurgdinoError
from surgdino.paths import regular
from surgdino.wording import counted

# What tools call the two folders of pictures with masks, without case, spaces and marks.
IMAGES = frozenset(("images", "image", "imgs", "img", "jpegimages", "pictures", "original", "originals"))
MASKS = frozenset(("masks", "mask", "segmentationclass", "segmentations", "segmentation"))
MASKS |= {"groundtruth", "gt", "annotations", "labels"}
_ENDINGS = re.compile(r"[_-](mask|masks|seg|segmentation|label|gt)$", re.IGNORECASE)
# `video01_000030_frame`, `case-12_f0003`, `smith (2)`, `IMG_0001`, `7`: a name, which may be empty, and a counter.
_COUNTER = re.compile(
    r"(?P<name>.*?)(?:(?:^|[ _.-]+)(?:f|fr|t|s|no|nr)?|[ _.-]*(?:frame|frm|image|img|picture|pic|photo|dsc[nf]?))"
    r"[ _.-]*\(?\d+\)?(?:[ _.-]+[a-z]+)?",
    re.IGNORECASE,
)
_PARTS = frozenset(("train", "training", "val", "valid", "validation", "test", "testing"))
_LEGEND = "labelmap.txt"  # CVAT writes it beside SegmentationClass/
_COLOURS = "0 to 255, each colour once"


@dataclass(frozen=True)
class Picture:
    """One picture, or any recording by its place on disk.

    Attributes:
        name: unique in the dataset: its path without suffix.
        path: its file or folder.
        top: the folder that subfolders of one operation lie in.
        prefix: what the name has before the path inside `top`.
    """

    name: str
    path: Path
    top: Path
    prefix: str


def without_parts(folders: Iterable[str]) -> list[str]:
    """Folders without those that are parts of a split: they say nothing of operations."""
    return [folder for folder in folders if letters(folder) not in _PARTS]


def places_by_name(adapter: Adapter, pictures: Sequence[Picture]) -> list[str]:
    """The operation of each picture: its subfolder, else its name without a counter; pictures of one video are one.

    A number alone does not say which operation it is of: such pictures count as one.
    """
    if not pictures:
        return []
    places, unnamed = [], 0
    inside = [(each.prefix.split("/")[:-1], each.path.parent.relative_to(each.top).parts) for each in pictures]
    above = _above([[*before, *below] for before, below in inside], min(len(before) for before, _ in inside))
    for picture, (before, below) in zip(pictures, inside, strict=True):
        lead = without_parts(before[above:])
        folders = without_parts(map(plain_name, below[max(above - len(before), 0) :]))
        stem = plain_name(picture.path.stem)
        found = _COUNTER.fullmatch(stem)
        unnamed += bool(found and not found["name"] and not folders)
        places.append("/".join([*lead, *(folders or [(found["name"] or "pictures") if found else stem])]))
    count = len({*places})
    if unnamed > 1:
        adapter.notes.append(f"{unnamed:,} pictures are called by a number, which says no operation: they count as one")
    if count < len(pictures):
        operations = counted(count, "operation")
        note = f"{len(pictures):,} pictures of {operations} by their names; data.operation_pattern changes that"
        adapter.notes.append(note)
    return places


def _above(paths: Sequence[Sequence[str]], before: int) -> int:
    """How many of the folders that hold all pictures say nothing of operations: the first ones, and `images/`."""
    shared = [{*column} for column in zip(*paths, strict=False)]
    shared = list(takewhile(lambda column: len(column) == 1, shared))
    return max((n for n, column in enumerate(shared, 1) if n <= before or letters(*column) in IMAGES), default=0)


def pairs_of_folders(root: Path) -> list[tuple[Path, Path]]:
    """Folders of pictures and of their masks that lie side by side, in `root` or below (`train/images`)."""
    pairs = []
    for folder, _ in walk(root):
        inside = [path for path in entries(folder) if path.is_dir()]
        found = [[path for path in inside if letters(path.name) in names] for names in (IMAGES, MASKS)]
        if [len(paths) for paths in found] == [1, 1]:
            images, masks = found[0][0], found[1][0]
            if any(is_image(path) for _, files in walk(masks) for path in files):
                pairs.append((images, masks))
    return pairs


def read_pairs(adapter: Adapter, pairs: Sequence[tuple[Path, Path]]) -> tuple[list[Picture], list[Labels]]:
    """Pictures and their masks, by name inside the two folders, without suffix and without regard to case."""
    pictures: list[Picture] = []
    values: dict[str, VideoMasks] = {}
    legend = _legend(adapter)
    classes = tuple(legend.values) if legend else adapter.card.mask_classes[:1]
    for images, masks in pairs:
        if (images.name, masks.name) != ("images", "masks"):
            what = f"{masks.name}/ is read as the masks of the pictures in {images.name}/"
            fix = "call the folders images/ and masks/ if this is right"
            adapter.problem("warning", what, masks, fix=fix)
        prefix = "" if images.parent == adapter.root else f"{name_of(images.parent, adapter.root)}/"
        of_images, of_masks = _by_name(adapter, images), _by_name(adapter, masks)
        spelled, used = _mask_spellings(of_masks), set[Path]()
        for name, path in of_images.items():
            pictures.append(Picture(prefix + name, path, images, prefix))
            files = _masks_of(name, spelled, classes, legend)
            if files:
                values[prefix + name] = VideoMasks({0: FrameMasks(path, files)}, classes)
                used |= {mask.path if isinstance(mask, Layer) else mask for mask in files.values() if mask is not None}
        bare = [path for name, path in of_images.items() if prefix + name not in values]
        fix = "they are used in pretraining only; if nothing is to be seen, add an empty mask"
        _report_alone(adapter, bare, "warning", "images without a mask", fix)
        alone = [path for path in of_masks.values() if path not in used]
        _report_alone(adapter, alone, "error", "masks without an image", "copy the images, or remove the masks")
    # Sizes may differ from picture to picture, so each is a video of its own, whose frame 0 it is.
    return pictures, [Labels("masks", classes, values)]


def _legend(adapter: Adapter) -> Legend | None:
    """Of masks with several classes: the card's, CVAT's, or ids in the order of the classes; None of one class."""
    card, path = adapter.card, adapter.root / _LEGEND
    if card.masks:
        return Legend(card.masks)
    if len(card.mask_classes) > 1:
        legend = Legend({name: number for number, name in enumerate(card.mask_classes, start=1)})
        adapter.notes.append(f"masks are read as ids: 0 none, {legend}, 255 unlabelled; or one file a class")
        return legend
    if not path.is_file():
        return None
    values: dict[str, int | Colour] = {}
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        found = re.fullmatch(r"\s*([^#:][^:]*?)\s*:\s*(\d{1,3})\s*,\s*(\d{1,3})\s*,\s*(\d{1,3})\s*(:.*)?", line)
        if found:
            colour = (int(found[2]), int(found[3]), int(found[4]))
            if max(colour) > 255 or colour in values.values():
                what = "a colour that cannot be"
                raise SurgdinoError(what, file=path, place=f"row {number}", expected=_COLOURS, found=line)
            if any(colour):
                values[plain_name(found[1])] = colour
        elif line.strip() and not line.lstrip().startswith("#"):
            expected = "name:red,green,blue::"
            raise SurgdinoError("not a class and its colour", file=path, place=f"row {number}", expected=expected)
    if not values:
        return None
    adapter.notes.append(f"{_LEGEND}: {len(values)} classes by their colours: {Legend(values)}")
    return Legend(values)


def _masks_of(
    name: str, masks: Mapping[str, Path], classes: Sequence[str], legend: Legend | None
) -> dict[str, Path | Layer | None]:
    """Class -> mask of one picture; empty where it has none.

    Args:
        masks: of all pictures, by every spelling of their names.
    """
    found = masks.get(name, masks.get(name.casefold()))
    if found is not None and legend is not None:
        return {kind: Layer(found, kind, legend) for kind in classes}
    if found is not None:
        return dict.fromkeys(classes, found)
    names = {kind: (f"{name}_{kind}".casefold(), f"{kind}/{name}".casefold()) for kind in classes}
    files = {kind: masks.get(first, masks.get(second)) for kind, (first, second) in names.items()}
    return dict(files) if any(files.values()) else {}


def _mask_spellings(masks: Mapping[str, Path]) -> dict[str, Path]:
    """Every name that means just one mask: as it is, in small letters, and without `_mask` at its end."""
    found: dict[str, set[str]] = {}
    for name in masks:
        for spelling in (name, _ENDINGS.sub("", name)):
            found.setdefault(spelling.casefold(), set()).add(name)
    return {name: masks[names.pop()] for name, names in found.items() if len(names) == 1} | dict(masks)


def _by_name(adapter: Adapter, folder: Path) -> dict[str, Path]:
    """The images of a folder by their names in it, without suffix."""
    files: dict[str, Path] = {}
    for _, paths in walk(folder):
        for path in filter(is_image, paths):
            name = name_of(path, folder)
            try:
                regular(path)
            except SurgdinoError as error:
                adapter.problems.append(Problem.of(error))
                continue
            if name in files:
                found = files[name].name
                adapter.problem("error", "two files of one name", path, found=found, fix="keep one of them")
            elif path.stat().st_size == 0:
                what, found = "the file is empty", "0 bytes"
                adapter.problem("error", what, path, expected="an image", found=found, fix="copy it again")
            else:
                files[name] = path
    return files


def _report_alone(
    adapter: Adapter, paths: Sequence[Path], severity: Literal["error", "warning"], what: str, fix: str
) -> None:
    if paths:
        shown = ", ".join(path.name for path in paths[:3]) + (", ..." if len(paths) > 3 else "")
        message, expected = f"{len(paths)} {what}", "the same name in images/ and masks/"
        adapter.problem(severity, message, paths[0], expected=expected, found=shown, fix=fix)
