"""Frames beside the archive: those that `like` wants, and those that `against` says will be tested on."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from surgdino.config import typed
from surgdino.curation.stages import Frames
from surgdino.datasets.card import load_card
from surgdino.errors import SurgdinoError
from surgdino.frames.prints import recognise, references
from surgdino.frames.store import FrameStore, build_store
from surgdino.inputs.datasets import RunDataset
from surgdino.inputs.settings import AlsoSettings, DataSettings, manifest_of, with_defaults
from surgdino.paths import safe_name
from surgdino.runs.names import Pseudonyms

_WORD, _HERE = "dataset:", "SURGDINO_DATASETS"


@dataclass(frozen=True)
class NamedFrames:
    """Frames of a dataset.

    Attributes:
        store: flagged frames included.
        called: such as `cholec80 40-40 test`.
    """

    dataset: RunDataset
    store: FrameStore
    called: str

    def among(self, archive: FrameStore) -> set[str]:
        """The archive's operations that are among these, by their names or by the prints of their frames."""
        own = {video.operation for video in self.store.videos}
        known = {operation: references(prints) for operation, prints in self.store.prints_of(own).items()}
        found = archive.prints_of({video.operation for video in archive.videos})
        return {operation for operation, prints in found.items() if operation in own or recognise(known, prints)}


@dataclass(frozen=True)
class Tested:
    """Frames that will be tested on: unit vectors [t, D] of a backbone, and which of the archive's frames are of the
    same operations, bool [n]."""

    named: NamedFrames
    vectors: np.ndarray
    same: np.ndarray
    backbone: str

    def facts(self, frames: Frames, names: Pseudonyms) -> dict[str, Any]:
        """For the table's metadata; see `surgdino.backbone.model_json.Apart`."""
        kept = frames.reason == ""
        return {
            "of": self.named.called,
            "operations": sorted({names.hide(video.operation) for video in self.named.store.videos}),
            "frames": len(self.vectors),
            "cosine": frames.thresholds.get("against"),
            "nearest": None if frames.to_tested is None else round(float(frames.to_tested[kept].max()), 4),
            "backbone": self.backbone,
        }


def named_frames(
    entry: Any, place: str, datasets: Sequence[RunDataset], data: DataSettings, names: Pseudonyms
) -> NamedFrames:
    """The frames that `like` or `against` names: a folder, `dataset:NAME:SPLIT:PART`, or an entry as in data.also.

    Args:
        place: the setting's name.
        datasets: of the archive; they may be named too.
        names: takes in the videos.

    Raises:
        SurgdinoError: neither, or it is not there.
    """
    roots = {each.card.name: each.manifest.root for each in reversed(datasets)}
    values = {"dataset": "folder", "root": entry} if isinstance(entry, str) else entry
    if isinstance(entry, str) and entry.startswith(_WORD):
        values = _by_name(entry, place, roots)
    if not isinstance(values, Mapping):
        expected = "a folder, dataset:NAME, or {dataset: ..., root: ...}"
        raise SurgdinoError("unusable setting", place=place, expected=expected, found=entry)
    chosen = typed(AlsoSettings, with_defaults(values), place)
    card = load_card(chosen.dataset)
    manifest = manifest_of(card, chosen, names)  # type: ignore[arg-type]
    # Shards are named by dataset and video: another folder of a dataset that the archive has would overwrite them.
    known = roots.get(card.name, manifest.root)
    folder = data.store if known.resolve() == manifest.root.resolve() else data.store / safe_name(place)
    settings = replace(data.store_settings, fps=chosen.fps or data.fps)
    store = build_store(manifest, folder, settings, workers=data.worker_count, engine=data.engine)
    if not len(store):
        raise SurgdinoError("no usable frame in any video", file=manifest.root, place=place, fix="choose other frames")
    split = chosen.split if isinstance(chosen.split, str) else "inline split" if chosen.split else None
    called = " ".join(filter(None, (card.name, split, chosen.part)))
    return NamedFrames(
        RunDataset(card, manifest, frozenset(), "", folder, settings), store.select(flagged=True), called
    )


def _by_name(entry: str, place: str, roots: Mapping[str, Path]) -> dict[str, Any]:
    """`dataset:NAME`, `dataset:NAME:SPLIT` (of `against` its test part) or `dataset:NAME:SPLIT:PART` as an entry."""
    name, split, part, *more = [*entry.removeprefix(_WORD).split(":"), "", ""]
    if any(more):
        raise SurgdinoError("unusable setting", place=place, expected="dataset:NAME:SPLIT:PART", found=entry)
    card, home = load_card(name), os.environ.get(_HERE)
    root = roots.get(card.name) or (Path(home).expanduser() / name if home else None)
    if root is None or not root.is_dir():
        fix = f"export {_HERE}=FOLDER, in which {name}/ lies, or write {place}='{{dataset: {name}, root: ...}}'"
        raise SurgdinoError(f"nothing says where the dataset {name} lies", file=root, place=place, fix=fix)
    part = part or ("test" if split and place == "against" else "")
    return {"dataset": name, "root": str(root), "split": split or None, "part": part or None}
