"""Masks as PNG: one file an image and class, or one file an image.

- one class: `<video>/<frame>.png`, 0 and 255 (or 0 and 1).
- several classes, which may overlap: `<video>/<frame>_<class>.png`, each 0 and 255; a class without a file is absent
  from that image, as in DSAD's `multilabel/`. This is what we write.
- several classes, without overlap: `<video>/<frame>.png` of ids, 0 for none of them, k for the k-th class (from 1), 255
  for pixels that are unlabelled.

All files may be in one folder too (`<name>.png`), and may have DSAD's prefixes (`mask07_liver.png` is frame 7).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from surgdino.datasets.files import is_image, plain_name, walk
from surgdino.datasets.mask_files import Legend, layers_and_unlabelled, read_mask
from surgdino.errors import SurgdinoError
from surgdino.paths import atomic_write, file_of, safe_name

_PREFIX = re.compile(r"(?:mask|image)[_-]?(?=\d)", re.IGNORECASE)


@dataclass(frozen=True)
class MaskImage:
    """The mask files of one image.

    Attributes:
        name: for messages: the path in the folder, without class and suffix.
        files: class -> file; the file under None holds all classes. Empty where the image has no mask.
    """

    name: str
    files: dict[str | None, Path] = field(default_factory=dict)


def write_masks(folder: Path, video: str, frame: int | None, masks: np.ndarray, classes: Sequence[str]) -> list[Path]:
    """Write one image's masks, 0 and 255: `<video>/<frame>.png`, or with several classes one file each.

    Args:
        frame: None for an image that is no frame, whose files are `<video>.png`.
        masks: bool [C, H, W].
    """
    masks = np.asarray(masks, dtype=bool)
    if masks.ndim != 3 or len(masks) != len(classes):
        raise SurgdinoError("not one mask a class", expected=f"[{len(classes)}, H, W]", found=list(masks.shape))
    files = _files(folder, video, frame, classes)
    for path, mask in zip(files, masks, strict=True):
        data = cv2.imencode(".png", mask.astype(np.uint8) * 255)[1]
        with atomic_write(path) as temporary:
            temporary.write_bytes(data.tobytes())
    return files


def read_written(folder: Path, video: str, frame: int, classes: Sequence[str]) -> np.ndarray:
    """bool [C, H, W]: what `write_masks` wrote of that frame, or of the image if the video is one."""
    files = _files(folder, video, frame, classes)
    return np.stack(
        [read_mask(path) for path in (files if files[0].is_file() else _files(folder, video, None, classes))]
    )


def _files(folder: Path, video: str, frame: int | None, classes: Sequence[str]) -> list[Path]:
    stem = video if frame is None else f"{video}/{frame:06d}"
    endings = [".png"] if len(classes) == 1 else [f"_{safe_name(name)}.png" for name in classes]
    return [file_of(folder, stem, ending) for ending in endings]


def index_masks(folder: Path, classes: Sequence[str]) -> dict[tuple[str, ...], MaskImage]:
    """What a folder holds: (folders, name or frame number) -> the files of that image."""
    if not folder.is_dir():
        what = "not a folder" if folder.exists() else "the folder does not exist"
        raise SurgdinoError(what, file=folder, expected="a folder of masks", fix="check the path")
    found: dict[tuple[str, ...], MaskImage] = {}
    for root in (roots := _roots(folder)):
        place = plain_name(root.relative_to(folder).as_posix()) if roots != [folder] else ""
        for _, paths in walk(root):
            images = [path for path in paths if is_image(path)]
            beside_masks = any(path.stem.lower().startswith("mask") for path in images)
            for path in images:
                name = plain_name(path.relative_to(folder).as_posix()[: -len(path.suffix)])
                stem, kind = _class_of(name, classes)
                picture = found.setdefault(_key(_of_video(stem, place)), MaskImage(stem))
                if beside_masks and path.stem.lower().startswith("image"):
                    continue  # the picture itself, beside its masks
                if kind in picture.files:
                    other = picture.files[kind].name
                    raise SurgdinoError("two masks for one picture", file=path, expected="one", found=f"{other} too")
                picture.files[kind] = path
    if not found:
        raise SurgdinoError("no masks in this folder", file=folder, expected="<video>/<frame>.png")
    return found


def _roots(folder: Path) -> list[Path]:
    """Where the masks are: in all `masks/` that `predict` wrote beside its `overlays/`, else anywhere in the folder."""
    places = (place for place, _ in walk(folder) if place.name == "masks" and place != folder)
    return [place for place in places if (place.parent / "overlays").is_dir()] or [folder]


def _of_video(stem: str, place: str) -> str:
    """`04/masks/04/7` and `04/masks/7` -> `04/7`, of a picture in the folder `04/masks` that `predict` wrote."""
    video, inside = place.removesuffix("masks").rstrip("/"), stem.removeprefix(f"{place}/")
    return inside if not video or f"{inside}/".startswith(f"{video}/") else f"{video}/{inside}"


def read_mask_image(image: MaskImage, classes: Sequence[str]) -> tuple[np.ndarray | None, np.ndarray | None]:
    """One image's masks bool [C, H, W] (None where it has no file), and bool [H, W] of the labelled pixels or None."""
    if None in image.files:
        path = image.files[None]
        if len(image.files) > 1:
            fix = "keep one file for the picture, or one for each class"
            raise SurgdinoError("a picture's mask and masks of its classes", file=path, found=image.name, fix=fix)
        return _read(path, classes)
    channels = {name: read_mask(path) for name, path in image.files.items()}
    if not channels:
        return None, None
    empty = np.zeros_like(next(iter(channels.values())))
    for name, mask in channels.items():
        if mask.shape != empty.shape:
            raise size_error(image.files[name], empty.shape, mask.shape)
    return np.stack([channels.get(name, empty) for name in classes]), None


def _read(path: Path, classes: Sequence[str]) -> tuple[np.ndarray, np.ndarray | None]:
    """bool [C, H, W], and bool [H, W] of the labelled pixels, None where all are."""
    if len(classes) == 1:
        return read_mask(path)[None], None
    masks, unlabelled = layers_and_unlabelled(path, Legend({name: k for k, name in enumerate(classes, start=1)}))
    return np.stack([masks[name] for name in classes]), ~unlabelled if unlabelled.any() else None


def size_error(path: Path, expected: Sequence[int], found: Sequence[int]) -> SurgdinoError:
    """Two masks of one image that differ in size, both given as (height, width)."""
    return SurgdinoError(
        "the mask has another size",
        file=path,
        expected=f"{expected[1]}x{expected[0]}",
        found=f"{found[1]}x{found[0]}",
        fix="bring it to the size of the truth, by nearest neighbour",
    )


def _class_of(name: str, classes: Sequence[str]) -> tuple[str, str | None]:
    """`04/mask07_liver` -> (`04/mask07`, `liver`): the longest class that the name ends with, if any."""
    for kind in sorted(classes, key=len, reverse=True):
        for written in (kind, safe_name(kind)):
            if name.lower().endswith(f"_{written.lower()}"):
                return name[: -len(written) - 1], kind
    return name, None


def _key(name: str) -> tuple[str, ...]:
    *folders, last = name.split("/")
    last = _PREFIX.sub("", last)
    return (*folders, str(int(last)) if last.isdecimal() else last)
