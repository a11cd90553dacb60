"""CholecT50's layout (`videos/` of images, `labels/` of JSON) and the older CholecT45's (`data/`, folders of text)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from surgdino.datasets.card import Card
from surgdino.datasets.complaints import as_problem, foreign, missing, twice, unexpected
from surgdino.datasets.image_files import numbered_images
from surgdino.datasets.labels import FrameLabels
from surgdino.datasets.listing import entries
from surgdino.datasets.manifest import Labels, Manifest, Problem, Video
from surgdino.datasets.triplet_json import read_triplet_json
from surgdino.datasets.triplet_text import read_triplet_text
from surgdino.datasets.triplets import TASKS, check_tables, vocabulary
from surgdino.errors import SurgdinoError

_NAME = re.compile(r"vid(?:eo)?0*(\d+)", re.IGNORECASE)


def build(card: Card, root: Path, options: Mapping[str, Any]) -> Manifest:
    """Folders of images, their triplets with instrument, verb and target, and their phases (CholecT50 alone has those).

    A frame is labelled if an annotation stands for it: the challenge's validation release has gaps in its numbers and
    images without annotation, which stay in the Manifest's folders and have no labels.

    Raises:
        SurgdinoError: neither of the two layouts.
    """
    frames = next((root / name for name in ("videos", "data") if (root / name).is_dir()), None)
    if frames is None:
        raise _another_layout(root, card)
    folders, problems = _video_folders(frames, card)
    problems += check_tables(root, card)
    suffix, files, strangers = _label_files(root)
    problems += strangers + _unpaired(root, suffix, files, folders, frames)
    labels: dict[str, dict[str, FrameLabels]] = {}
    for number, folder in sorted(folders.items()):
        images, faults = _images(folder)
        problems += faults
        if number in files and len(images):
            found, faults = _labels(root, files[number], folder, images, card)
            problems += faults
            for task, values in found.items():
                labels.setdefault(task, {})[_id(number)] = values
    problems += missing(folders, card, frames)
    videos = [Video(_id(n), card.operation_of(n), folder, card.fps) for n, folder in sorted(folders.items())]
    classes = vocabulary(card)
    read = {task: Labels(task, classes[task], labels[task]) for task in (*TASKS, "phase") if task in labels}
    return Manifest(card.name, root, tuple(videos), read, tuple(problems))


def _labels(
    root: Path, file: Path, folder: Path, images: np.ndarray, card: Card
) -> tuple[dict[str, FrameLabels], list[Problem]]:
    """Task -> the labels of one video's images."""
    if file.suffix == ".txt":
        found, problems = read_triplet_text(root, file.stem, card)
    else:
        found, problems = read_triplet_json(file, card)
    if "triplet" in found and not any(problem.severity == "error" for problem in problems):
        problems += _joined(found["triplet"].numbers, images, folder, file)
    labels = {}
    for task, values in found.items():
        known = np.isin(values.numbers, images)
        if known.any():
            labels[task] = FrameLabels(values.numbers[known], values.array[known])
    return labels, problems


def _id(number: int) -> str:
    return f"VID{number:02d}"


def _video_folders(frames: Path, card: Card) -> tuple[dict[int, Path], list[Problem]]:
    folders: dict[int, Path] = {}
    problems: list[Problem] = []
    for path in entries(frames):
        found = _NAME.fullmatch(path.name)
        if not found or not path.is_dir():
            problems.append(unexpected(path, "folders VID01, ..."))
            continue
        number = int(found[1])
        if number in folders:
            problems.append(twice(path, folders[number]))
            continue
        folders[number] = path
        problems += foreign(path, number, card)
    return folders, problems


def _images(folder: Path) -> tuple[np.ndarray, list[Problem]]:
    """Frame numbers int64 [n] of a folder's images, ascending."""
    try:
        numbers = np.array(list(numbered_images(folder)), np.int64)
    except SurgdinoError as error:
        return np.empty(0, np.int64), [as_problem(error, "name it by its second, or take it away")]
    if not len(numbers):
        return numbers, [Problem("error", "no images in this folder", folder, expected="000000.png, ...")]
    return numbers, []


def _label_files(root: Path) -> tuple[str, dict[int, Path], list[Problem]]:
    """The kind of label files (by suffix), video number -> one of them, and what else lies in their folders."""
    suffix = ".json" if (root / "labels").is_dir() or not (root / "triplet").is_dir() else ".txt"
    files: dict[int, Path] = {}
    problems: list[Problem] = []
    for task in ("labels",) if suffix == ".json" else TASKS:
        seen: dict[int, Path] = {}
        for path in entries(root / task):
            found = _NAME.fullmatch(path.stem)
            if not found or path.suffix.lower() != suffix:
                problems.append(unexpected(path, f"VID01{suffix}"))
            elif int(found[1]) in seen:
                problems.append(twice(path, seen[int(found[1])]))
            else:
                seen[int(found[1])] = path
        files = {**seen, **files}
    return suffix, files, problems


def _unpaired(
    root: Path, suffix: str, files: Mapping[int, Path], folders: Mapping[int, Path], frames: Path
) -> list[Problem]:
    where = "labels" if suffix == ".json" else TASKS[0]
    if not files:
        what, fix = "no triplet annotations", "pretraining needs none; copy the folder from the release"
        return [Problem("warning", what, root / where, expected=f"VID01{suffix}, ...", fix=fix)]
    problems = []
    for number in sorted(set(folders) - set(files)):
        file = root / where / f"{folders[number].name}{suffix}"
        what, fix = f"{_id(number)} has no labels", "copy it from the release"
        problems.append(Problem("error", what, file, found="no such file", fix=fix))
    for number in sorted(set(files) - set(folders)):
        expected, fix = f"{frames.name}/{_id(number)}/", "copy the images, or take the labels away"
        problems.append(
            Problem("error", "labels without a video", files[number], None, expected, "no such folder", fix)
        )
    return problems


def _joined(numbers: np.ndarray, images: np.ndarray, folder: Path, file: Path) -> list[Problem]:
    """Annotations without an image are wrong, images without annotation are not: iterate over annotations."""
    problems = []
    without_image = np.setdiff1d(numbers, images)
    if len(without_image):
        what, place = f"{len(without_image)} annotations without an image", f"frame {int(without_image[0])}"
        expected, found = "an image of every annotated frame", f"images {int(images[0])} to {int(images[-1])}"
        problems.append(Problem("error", what, file, place, expected, found, "copy the images again"))
    bare = np.setdiff1d(images, numbers)
    if len(bare):
        what = f"{len(bare)} of {len(images)} images have no annotation, the first is {int(bare[0])}"
        fix = "nothing: they count for pretraining and for no figure"
        problems.append(Problem("warning", what, folder, fix=fix))
    return problems


def _another_layout(root: Path, card: Card) -> SurgdinoError:
    inside = next((p for p in entries(root) if any((p / n).is_dir() for n in ("videos", "data"))), None)
    if root.name in ("videos", "data") and any(_NAME.fullmatch(p.name) for p in entries(root)):
        fix = f"point data.root one level up, at {root.parent}"
    elif inside is not None:
        fix = f"point data.root at {inside}"
    else:
        fix = "point data.root at the folder that holds videos/ and labels/"
    expected = "a folder videos/ (or data/, in the older release) in it"
    return SurgdinoError(f"this is not the layout of {card.name}", file=root, expected=expected, fix=fix)
