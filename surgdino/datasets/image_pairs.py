"""`images/` and `masks/` with the same names in both: each picture a video of one frame, with its binary mask."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from surgdino.datasets.listing import is_image, plain_name, walk
from surgdino.datasets.manifest import Labels, Problem
from surgdino.datasets.masks import FrameMasks, VideoMasks

_FOLDERS = ("images", "masks")


def has_pairs(root: Path) -> bool:
    """Whether a folder holds `images/` and `masks/`."""
    return all((root / name).is_dir() for name in _FOLDERS)


def find_pairs(root: Path, classes: tuple[str, ...]) -> tuple[list[tuple[str, Path]], Labels | None, list[Problem]]:
    """Pictures and masks, by name.

    Names may be anything and sizes may differ from picture to picture, so each is a video of its own, whose frame 0
    it is.

    Returns:
        (name inside `images/` without its suffix, picture), the masks of task `masks`, and what is amiss.
    """
    images, problems = _by_name(root / "images")
    masks, faults = _by_name(root / "masks")
    problems += faults
    values = {}
    for name in images.keys() & masks.keys():
        values[name] = VideoMasks({0: FrameMasks(images[name], dict.fromkeys(classes[:1], masks[name]))}, classes[:1])
    fix = "they count for pretraining only; where nothing is to be seen, put an empty mask"
    problems += _alone(images, masks, "warning", "images without a mask", fix)
    problems += _alone(masks, images, "error", "masks without an image", "copy the images, or take the masks away")
    ordered = {name: values[name] for name in images if name in values}
    return list(images.items()), Labels("masks", classes[:1], ordered) if ordered else None, problems


def _alone(
    these: Mapping[str, Path], those: Mapping[str, Path], severity: Literal["error", "warning"], what: str, fix: str
) -> list[Problem]:
    alone = sorted(these.keys() - those.keys())
    if not alone:
        return []
    shown = ", ".join(these[name].name for name in alone[:3]) + (", ..." if len(alone) > 3 else "")
    expected = "the same name in images/ and masks/"
    return [Problem(severity, f"{len(alone)} {what}", these[alone[0]], None, expected, shown, fix)]


def _by_name(folder: Path) -> tuple[dict[str, Path], list[Problem]]:
    files: dict[str, Path] = {}
    problems = []
    for _, paths in walk(folder):
        for path in filter(is_image, paths):
            name = plain_name(path.relative_to(folder).with_suffix("").as_posix())
            if name in files:
                found, fix = files[name].name, "keep one of them"
                problems.append(Problem("error", "two files of one name", path, found=found, fix=fix))
            elif path.stat().st_size == 0:
                fix = "copy it again"
                problems.append(
                    Problem("error", "the file is empty", path, expected="an image", found="0 bytes", fix=fix)
                )
            else:
                files[name] = path
    return files, problems
