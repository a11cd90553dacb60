"""The door of this room: a card and a folder in, a Manifest out, with its videos in the parts of a split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from surgdino import discovery
from surgdino.datasets.adapter import Adapter
from surgdino.datasets.card import PARTS, Card, Entry, compact, number_in, read_parts, stride
from surgdino.datasets.class_names import from_one
from surgdino.datasets.files import DRAWN, EXPORT_DICOM, GENERATED, is_image
from surgdino.datasets.labelled_pictures import without_parts
from surgdino.datasets.manifest import Labels, Manifest, Problem, Video, place_of
from surgdino.errors import SurgdinoError, from_os_error, nearest


def open_dataset(
    card: Card,
    root: str | Path,
    *,
    split: str | Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Manifest:
    """What a dataset's folder holds. Nothing is decoded; what is amiss stands in the Manifest's `problems`.

    Args:
        card: from `load_card` or `Card.from_dict`.
        root: the dataset's folder; only read.
        split: a split of the card or of the folder's own files by name, or `{train: [1, 2], test: [3]}` with video
            numbers, ids or operations, or by rule: `{train: rest, test: every 5th}`.
        options: those of `data` that an adapter names in `takes`, such as `operation_pattern`; None is not set.

    Raises:
        SurgdinoError: no such folder, no video in it, another layout, no such split, an option that the adapter has no
            use for, or a split that tears an operation apart.
    """
    root = folder_of(card.name, root)
    module = discovery.load("surgdino.datasets.adapters", card.adapter, "dataset.adapter")
    adapter = discovery.defined(module, Adapter)  # type: ignore[type-abstract]
    given = {key: value for key, value in (options or {}).items() if value is not None}
    for key in given:
        if key not in adapter.takes:
            raise SurgdinoError(f"dataset={card.name} has no use for data.{key}", fix="leave it out")
    try:
        manifest = adapter(card, root, given).read()
    except OSError as error:
        raise from_os_error(error, error.filename or root) from error
    if not manifest.videos:
        if manifest.errors:
            raise manifest.errors[0].error()
        if archived := [problem for problem in manifest.problems if problem.fix == EXPORT_DICOM]:
            raise archived[0].error()
        expected = "; ".join(card.layout) or "videos"
        raise SurgdinoError("no videos in this folder", file=root, expected=expected, fix="check data.root and dataset")
    for labels in manifest.labels.values():
        _check_ids(labels, root)
    if (root / GENERATED).exists():
        manifest = _as_demo(manifest)
    return manifest if split is None else apply_split(manifest, card, split)


def folder_of(dataset: str, root: str | Path, key: str = "data.root") -> Path:
    """A dataset's folder; refused where there is none."""
    root = Path(root).expanduser()
    if not root.is_dir():
        what = "not a folder" if root.exists() else "the folder does not exist"
        raise SurgdinoError(what, file=root, expected=f"the folder of dataset={dataset}", fix=f"check {key}")
    return root


def _as_demo(manifest: Manifest) -> Manifest:
    """A generated set under names of its own: the public ids of its layout would be taken for real operations."""
    videos = tuple(
        replace(video, operation=f"{DRAWN}/{place_of(video.operation)}", formerly=()) for video in manifest.videos
    )
    return replace(manifest, videos=videos, notes=(*manifest.notes, "a generated set: its operations are demo/1, ..."))


def _check_ids(labels: Labels, root: Path) -> None:
    """Refuse ids of no class, as an adapter of one's own may give them: they would end training in some other line."""
    for video, values in labels.values.items():
        ids = values.array
        if (
            ids.ndim == 1
            and ids.dtype.kind in "iu"
            and ids.size
            and not 0 <= ids.min() <= ids.max() < len(labels.classes)
        ):
            what, expected = f"a {labels.task} id of no class", f"0 to {len(labels.classes) - 1}"
            fix = "leave frames without a label out"
            if from_one(np.unique(ids).tolist(), len(labels.classes)):
                fix = "the ids seem to count from 1: count them from 0"
            found = f"{ids.min()} to {ids.max()}"
            raise SurgdinoError(what, file=root, place=video, expected=expected, found=found, fix=fix)


def apply_split(manifest: Manifest, card: Card, split: str | Mapping[str, Any]) -> Manifest:
    """The same videos, each with the part it belongs to; videos that the split does not name belong to none.

    In the place of a list, `every 5th` takes the first, sixth, ... operation that no list names, in the manifest's
    order (test before validation before training), and `rest` those that are left then.

    Raises:
        SurgdinoError: see `open_dataset`.
    """
    name = split if isinstance(split, str) else "data.split"
    if not isinstance(split, str):
        parts: Mapping[str, tuple[Entry, ...]] = read_parts(split, name)
    elif split in card.splits:
        parts = card.splits[split]
    elif split in manifest.splits:
        parts = read_parts(manifest.splits[split], f"split {split}")
    else:
        fix = (
            nearest(split, [*card.splits, *manifest.splits])
            if card.videos
            else "give it inline: data.split={train: [...], test: [...]}"
        )
        raise SurgdinoError(f"dataset={card.name} has no split {split!r}", fix=fix)
    known = _known_names(manifest, card)
    part_of: dict[str, str] = {}
    problems: list[Problem] = []
    for part, entries in _without_rules(parts, manifest, known).items():
        absent = []
        for entry in entries:
            part_of |= {video.id: part for video in known.get(entry, ())}
            if entry not in known and not (entry in card.videos and card.operation_of(entry) in manifest.elsewhere):
                absent.append(entry)
        problems += _absent(name, part, entries, absent, manifest, card)
    _refuse_torn_operations(manifest, part_of, name)
    videos = tuple(replace(video, split=part_of.get(video.id)) for video in manifest.videos)
    return replace(manifest, videos=videos, problems=(*manifest.problems, *problems))


def _known_names(manifest: Manifest, card: Card) -> dict[Entry, list[Video]]:
    """All that a split may call a video: its id, its operation with or without the dataset's name, their numbers."""
    names: dict[Entry, list[Video]] = {}
    for video in manifest.videos:
        known: set[Entry | None] = {*manifest.names_of(video)}
        if video.id not in card.videos:  # what a card lists by name has no number: test_workflow_video_01 is not 1
            known |= {number_in(video.id)}
            # What has another set's name has its number there: endoscapes' video 1 is camma/67, and not its 67.
            known |= {number_in(place_of(video.operation))} - {*map(number_in, map(place_of, card.operations.values()))}
        known |= {folder for folder in video.id.split("/")[:-1] if not without_parts([folder])}  # `train/`
        for name in known - {None}:
            names.setdefault(name, []).append(video)  # type: ignore[arg-type]
    return names


def _without_rules(
    parts: Mapping[str, tuple[Entry, ...]], manifest: Manifest, known: Mapping[Entry, list[Video]]
) -> dict[str, tuple[Entry, ...]]:
    """The parts with operations in the place of `every 5th` and `rest`."""
    rules = {
        part: 1 if entries == ("rest",) else stride(str(entries[0]))
        for part, entries in parts.items()
        if len(entries) == 1
    }
    listed = (entry for part, entries in parts.items() if not rules.get(part) for entry in entries)
    taken = {video.operation for entry in listed for video in known.get(entry, ())}
    left = [operation for operation in dict.fromkeys(v.operation for v in manifest.videos) if operation not in taken]
    spelled = dict(parts)
    # `rest` goes last, whatever part it stands for.
    for part in sorted(parts, key=lambda p: (parts[p] == ("rest",), -PARTS.index(p))):
        if step := rules.get(part):
            spelled[part] = tuple(left[::step])
            left = [operation for operation in left if operation not in spelled[part]]
    return spelled


def _absent(
    name: str, part: str, entries: tuple[Entry, ...], absent: list[Entry], manifest: Manifest, card: Card
) -> list[Problem]:
    """Missing videos of a split: a warning where the card knows them, a mistyped name where nobody does."""
    strange = [entry for entry in absent if entry not in card.videos]
    if strange:
        names = {v.id for v in manifest.videos} | {v.operation for v in manifest.videos}
        raise SurgdinoError(f"{name} names {strange[0]!r}, which is not there", fix=nearest(str(strange[0]), names))
    if not absent:
        return []
    count = f"{len(absent)} of its {len(entries)}" if len(absent) < len(entries) else f"none of its {len(entries)}"
    verb = "are not here" if len(absent) < len(entries) else "is here"
    message = f"split {name}: {count} {part} videos {verb}: {compact(absent)}"
    fix = "figures on this split cannot be compared with published ones"
    return [Problem("warning", message, manifest.root, fix=fix)]


def _refuse_torn_operations(manifest: Manifest, part_of: Mapping[str, str], name: str) -> None:
    """Frames of one operation in two parts would let a backbone be tested on what it was trained on."""
    first: dict[str, Video] = {}
    for video in manifest.videos:
        before = first.setdefault(video.operation, video)
        if part_of.get(video.id) != part_of.get(before.id):
            parts = ", ".join(f"{each.id} in {part_of.get(each.id, 'no part')}" for each in (before, video))
            fix = "put all videos of an operation into one part"
            if is_image(video.path):
                fix += ", or say with data.operation_pattern which pictures are one operation ('(.+)': each is its own)"
            raise SurgdinoError(f"{name} tears the operation {video.operation} apart", found=parts, fix=fix)
