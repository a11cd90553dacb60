"""The door of this room: a card and a folder in, a Manifest out, with its videos in the parts of a split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from surgdino.datasets.adapter import Adapter
from surgdino.datasets.card import PARTS, Card, Entry, compact, number_in, read_parts, stride
from surgdino.datasets.manifest import Manifest, Problem, Video
from surgdino.errors import SurgdinoError, from_os_error, nearest
from surgdino.paths import names_in


def adapter_names() -> list[str]:
    """The folder layouts that can be read: one file each in `adapters/`."""
    return names_in(Path(__file__).parent / "adapters", ".py")


def load_adapter(card: Card) -> type[Adapter]:
    """The class in `adapters/` that reads the card's layout."""
    if card.adapter not in adapter_names():
        raise SurgdinoError(f"no adapter {card.adapter!r}", place=card.name, fix=nearest(card.adapter, adapter_names()))
    module = import_module(f"surgdino.datasets.adapters.{card.adapter}")
    return next(
        kind
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, Adapter) and kind.__module__ == module.__name__
    )


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
        split: a split of the card by name, or `{train: [1, 2], test: [3]}` with video numbers, ids or operations, or
            by rule: `{train: rest, test: every 5th}`.
        options: those of `data` that an adapter names in `takes`, such as `operation_pattern`; None is not set.

    Raises:
        SurgdinoError: no such folder, no video in it, another layout, no such split, an option that the adapter has no
            use for, or a split that tears an operation apart.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        what = "not a folder" if root.exists() else "the folder does not exist"
        raise SurgdinoError(what, file=root, expected=f"the folder of dataset={card.name}", fix="check data.root")
    adapter = load_adapter(card)
    given = {key: value for key, value in (options or {}).items() if value is not None}
    for key in given:
        if key not in adapter.takes:
            raise SurgdinoError(f"dataset={card.name} has no use for data.{key}", fix="leave it out")
    try:
        manifest = adapter(card, root, given).read()
    except OSError as error:
        raise from_os_error(error, error.filename or root) from error
    if not manifest.videos:
        expected = "; ".join(card.layout) or "videos"
        raise SurgdinoError("no videos in this folder", file=root, expected=expected, fix="check data.root and dataset")
    return manifest if split is None else apply_split(manifest, card, split)


def apply_split(manifest: Manifest, card: Card, split: str | Mapping[str, Any]) -> Manifest:
    """The same videos, each told which part it belongs to; those that the split does not name belong to none.

    In the place of a list, `every 5th` takes the first, sixth, ... operation that no list names, in the manifest's
    order (test before validation before training), and `rest` those that are left then.

    Raises:
        SurgdinoError: see `open_dataset`.
    """
    name = split if isinstance(split, str) else "data.split"
    named = _named(card, split) if isinstance(split, str) else read_parts(split, "data.split")
    parts = _spelled_out(named, manifest, card)
    meant_by = _names(manifest, card)
    part_of: dict[str, str] = {}
    problems: list[Problem] = []
    for part, entries in parts.items():
        absent = []
        for entry in entries:
            part_of |= {video.id: part for video in meant_by.get(entry, ())}
            if entry not in meant_by and not _lies_elsewhere(entry, manifest, card):
                absent.append(entry)
        problems += _absent(name, part, entries, absent, manifest, card)
    _refuse_torn_operations(manifest, part_of, name)
    videos = tuple(replace(video, split=part_of.get(video.id)) for video in manifest.videos)
    return replace(manifest, videos=videos, problems=(*manifest.problems, *problems))


def _named(card: Card, split: str) -> Mapping[str, tuple[Entry, ...]]:
    if split not in card.splits:
        fix = nearest(split, card.splits) if card.videos else "give it inline: data.split={train: [...], test: [...]}"
        raise SurgdinoError(f"dataset={card.name} has no split {split!r}", fix=fix)
    return card.splits[split]


def _spelled_out(
    parts: Mapping[str, tuple[Entry, ...]], manifest: Manifest, card: Card
) -> dict[str, tuple[Entry, ...]]:
    """The parts with operations in the place of `every 5th` and `rest`."""
    lists = {part: entries for part, entries in parts.items() if not _is_rule(entries)}
    meant_by = _names(manifest, card)
    taken = {v.operation for entries in lists.values() for entry in entries for v in meant_by.get(entry, ())}
    left = [op for op in dict.fromkeys(v.operation for v in manifest.videos) if op not in taken]
    spelled: dict[str, tuple[Entry, ...]] = {}
    # `rest` goes last, whatever part it stands for.
    for part in sorted(parts, key=lambda p: (parts[p] == ("rest",), -PARTS.index(p))):
        if part in lists:
            spelled[part] = lists[part]
            continue
        spelled[part] = tuple(left[:: stride(str(parts[part][0])) or 1])
        left = [operation for operation in left if operation not in spelled[part]]
    return {part: spelled[part] for part in parts}


def _is_rule(entries: tuple[Entry, ...]) -> bool:
    return len(entries) == 1 and (entries[0] == "rest" or stride(str(entries[0])) is not None)


def _names(manifest: Manifest, card: Card) -> dict[Entry, list[Video]]:
    """All that a split may call a video: its id, its operation with or without the dataset's name, their numbers."""
    names: dict[Entry, list[Video]] = {}
    for video in manifest.videos:
        place = video.operation.partition("/")[2]
        known: set[Entry | None] = {video.id, video.operation, place}
        if video.id not in card.videos:  # what a card lists by name has no number: test_workflow_video_01 is not 1
            known |= {number_in(video.id), number_in(place)}
        for name in known - {None}:
            names.setdefault(name, []).append(video)  # type: ignore[arg-type]
    return names


def _lies_elsewhere(entry: Entry, manifest: Manifest, card: Card) -> bool:
    return entry in card.videos and card.operation_of(entry) in manifest.elsewhere


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
            parts = f"{before.id} in {part_of.get(before.id)}, {video.id} in {part_of.get(video.id)}"
            fix = "put all videos of an operation into one part"
            raise SurgdinoError(f"{name} tears the operation {video.operation} apart", found=parts, fix=fix)
