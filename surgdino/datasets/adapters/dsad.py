"""The Dresden Surgical Anatomy Dataset: `<organ>/<surgery>/imageNN.png` with `maskNN.png`, and `multilabel/`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from surgdino.datasets.card import Card
from surgdino.datasets.complaints import as_problem, foreign, missing, unexpected
from surgdino.datasets.image_files import is_mask, numbered_images
from surgdino.datasets.listing import entries, is_image
from surgdino.datasets.manifest import Labels, Manifest, Problem, Video
from surgdino.datasets.masks import FrameMasks, VideoMasks
from surgdino.errors import SurgdinoError, nearest

OPTIONS = ("organ", "rater")
MULTILABEL = "multilabel"
RATERS = ("anno_1", "anno_2", "anno_3", "merged")
# multilabel/ has the masks of stomach's pictures, in some copies without the pictures themselves.
_PICTURES_OF_MULTILABEL = "stomach"
# Its file's own name is looked at, never the path: a folder above may be called "images" too.
_MASK = re.compile(r"mask(\d+)(?:_(\w+))?", re.IGNORECASE)


def build(card: Card, root: Path, options: Mapping[str, Any]) -> Manifest:
    """A video a surgery and organ (`liver/04`, `multilabel/04`), its pictures in the place of frames.

    In an organ's folder the others are unlabelled; in `multilabel/` an organ without a file is absent.

    Args:
        card: its `mask_classes` are the organs, `multilabel` those that are labelled together.
        root: the folder that holds the organs' folders.
        options: `organ` (one of them, or `multilabel`) leaves the others out; `rater` reads another's masks.

    Raises:
        SurgdinoError: no such organ or rater, or another layout.
    """
    organ, rater = options.get("organ"), options.get("rater")
    _refuse_unknown("organ", organ, (*card.mask_classes, MULTILABEL))
    _refuse_unknown("rater", rater, RATERS)
    if rater and organ == MULTILABEL:
        raise SurgdinoError(
            "multilabel/ has no masks by rater", found=f"data.rater={rater}", fix="leave data.rater out"
        )
    problems = [
        unexpected(path, "folders named after organs")
        for path in entries(root)
        if path.is_dir() and path.name not in (*card.mask_classes, MULTILABEL)
    ]
    classes = {None: card.mask_classes, MULTILABEL: card.multilabel}.get(organ, (str(organ),))
    videos, labels, elsewhere = [], {}, set()
    for name, number, folder in _surgeries(root, card):
        if organ not in (None, name):
            elsewhere.add(card.operation_of(number))
            continue
        problems += foreign(folder, number, card)
        pictures, frames, faults = _pictures_and_masks(root, name, folder, rater, card)
        problems += faults
        if pictures is not None:
            videos.append(Video(f"{name}/{number:02d}", card.operation_of(number), pictures, card.fps))
            if frames:
                labels[videos[-1].id] = VideoMasks(frames, classes)
    if videos:
        here = elsewhere | {video.operation for video in videos}
        problems += missing([n for n in card.videos if card.operation_of(n) in here], card, root)
    read = {"masks": Labels("masks", classes, labels)} if labels else {}
    return Manifest(card.name, root, tuple(videos), read, tuple(problems), frozenset(elsewhere))


def _refuse_unknown(key: str, value: str | None, valid: tuple[str, ...]) -> None:
    if value is not None and value not in valid:
        raise SurgdinoError(f"dsad has no {key} {value!r}", fix=nearest(value, valid))


def _surgeries(root: Path, card: Card) -> Iterator[tuple[str, int, Path]]:
    """(organ or `multilabel`, surgery's number, folder), organ by organ."""
    for name in (*card.mask_classes, MULTILABEL):
        for folder in entries(root / name):
            if folder.is_dir() and folder.name.isdecimal():
                yield name, int(folder.name), folder


def _pictures_and_masks(
    root: Path, name: str, folder: Path, rater: str | None, card: Card
) -> tuple[Path | None, dict[int, FrameMasks], list[Problem]]:
    """The folder with the pictures (None where there is none), frame number -> masks, and what is amiss."""
    pictures = folder
    try:
        images = numbered_images(pictures)
        if not images and name == MULTILABEL:
            pictures = root / _PICTURES_OF_MULTILABEL / folder.name
            images = numbered_images(pictures)
    except SurgdinoError as error:
        return None, {}, [as_problem(error, "name it as the release does")]
    if not images:
        what, fix = "no images in this folder", "copy it again from the release"
        return None, {}, [Problem("error", what, folder, expected="image00.png, ...", fix=fix)]
    if name == MULTILABEL:
        masks, problems = _multilabel_masks(folder, card)
        frames = {
            n: FrameMasks(path, {c: masks.pop((n, c), None) for c in card.multilabel}) for n, path in images.items()
        }
    else:
        place = folder / rater if rater else folder
        masks, problems = _organ_masks(place, name)
        bare = [number for number in images if (number, name) not in masks]
        frames = {n: FrameMasks(p, {name: masks.pop((n, name))}) for n, p in images.items() if n not in set(bare)}
        problems += _without_mask(bare, images, place)
    for number, organ in sorted(masks):
        fix = "copy the image, or take the mask away"
        problems.append(
            Problem("error", "a mask without an image", masks[number, organ], None, f"image{number:02d}.png", None, fix)
        )
    return pictures, frames, problems


def _organ_masks(folder: Path, organ: str) -> tuple[dict[tuple[int, str], Path], list[Problem]]:
    masks = {}
    for path in entries(folder):
        found = _MASK.fullmatch(path.stem)
        if is_image(path) and found and not found[2]:
            masks[int(found[1]), organ] = path
    return masks, []


def _multilabel_masks(folder: Path, card: Card) -> tuple[dict[tuple[int, str], Path], list[Problem]]:
    masks, problems = {}, []
    for path in entries(folder):
        if not (is_image(path) and is_mask(path)):
            continue
        found = _MASK.fullmatch(path.stem)
        organ = found[2].lower() if found and found[2] else None
        if found and organ in card.multilabel:
            masks[int(found[1]), str(organ)] = path
        else:
            fix = nearest(str(organ), card.multilabel)
            expected = "mask00_<organ>.png"
            problems.append(Problem("error", "a mask of an unknown organ", path, None, expected, organ or "none", fix))
    return masks, problems


def _without_mask(bare: list[int], images: Mapping[int, Path], folder: Path) -> list[Problem]:
    if not bare:
        return []
    what = f"{len(bare)} of {len(images)} images have no mask, the first is {images[bare[0]].name}"
    fix = "copy the masks from the release; these images are left out"
    return [Problem("error", what, folder, None, f"mask{bare[0]:02d}.png", "no such file", fix)]
