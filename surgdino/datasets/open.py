"""The door of this room: a card and a folder in, a Manifest out, with its videos in the parts of a split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from surgdino.datasets.card import Card, read_parts
from surgdino.datasets.manifest import Manifest, Problem, Video
from surgdino.datasets.numbers import Entry, compact, number_in
from surgdino.errors import SurgdinoError, from_os_error, nearest
from surgdino.paths import names_in


def adapter_names() -> list[str]:
    """The folder layouts that can be read: one file each in `adapters/`."""
    return names_in(Path(__file__).parent / "adapters", ".py")


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
        split: a split of the card by name, or `{train: [1, 2], test: [3]}` with video numbers, ids or operations.
        options: what the adapter takes, such as `operation_pattern`.

    Raises:
        SurgdinoError: no such folder, no video in it, another layout, no such split, or a split that tears an
            operation apart.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        what = "not a folder" if root.exists() else "the folder does not exist"
        raise SurgdinoError(what, file=root, expected=f"the folder of dataset={card.name}", fix="check data.root")
    if card.adapter not in adapter_names():
        raise SurgdinoError(f"no adapter {card.adapter!r}", place=card.name, fix=nearest(card.adapter, adapter_names()))
    adapter = import_module(f"surgdino.datasets.adapters.{card.adapter}")
    try:
        manifest: Manifest = adapter.build(card, root, options or {})
    except OSError as error:
        raise from_os_error(error, error.filename or root) from error
    if not manifest.videos:
        expected = "; ".join(card.layout) or "videos"
        raise SurgdinoError("no videos in this folder", file=root, expected=expected, fix="check data.root and dataset")
    return manifest if split is None else apply_split(manifest, card, split)


def apply_split(manifest: Manifest, card: Card, split: str | Mapping[str, Any]) -> Manifest:
    """The same videos, each told which part it belongs to; those that the split does not name belong to none.

    Raises:
        SurgdinoError: see `open_dataset`.
    """
    name = split if isinstance(split, str) else "data.split"
    parts = _named(card, split) if isinstance(split, str) else read_parts(split, "data.split")
    part_of: dict[str, str] = {}
    problems: list[Problem] = []
    for part, entries in parts.items():
        absent = []
        for entry in entries:
            meant = [video for video in manifest.videos if _means(entry, video)]
            part_of |= {video.id: part for video in meant}
            absent += [] if meant else [entry]
        problems += _absent(name, part, entries, absent, manifest, card)
    _refuse_torn_operations(manifest, part_of, name)
    videos = tuple(replace(video, split=part_of.get(video.id)) for video in manifest.videos)
    return replace(manifest, videos=videos, problems=(*manifest.problems, *problems))


def _named(card: Card, split: str) -> Mapping[str, tuple[Entry, ...]]:
    if split not in card.splits:
        fix = nearest(split, card.splits) if card.splits else "give it inline: data.split={train: [...], test: [...]}"
        raise SurgdinoError(f"dataset={card.name} has no split {split!r}", fix=fix)
    return card.splits[split]


def _means(entry: Entry, video: Video) -> bool:
    place = video.operation.partition("/")[2]  # the operation's name without its dataset's
    if isinstance(entry, int):
        return entry in (number_in(video.id), number_in(place))
    return entry in (video.id, video.operation, place)


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
