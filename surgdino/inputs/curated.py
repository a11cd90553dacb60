"""What `data.curation` makes of a store: the frames that are learnt from, and what was left out for whom."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from surgdino import console
from surgdino.backbone.model_json import Apart
from surgdino.curation.table import RESEMBLES, Curation, read_curation
from surgdino.datasets.card import Card
from surgdino.datasets.manifest import Labels
from surgdino.errors import SurgdinoError, nearest
from surgdino.frames.store import FrameStore
from surgdino.inputs.datasets import joined_store, open_datasets
from surgdino.inputs.probe import joined_labels
from surgdino.inputs.settings import DataSettings
from surgdino.runs.folder import recorded_mode
from surgdino.runs.names import Pseudonyms, settings_of

_RECORDED = ("settings", "seed", "keep", "thresholds", "against")  # in model.json


@dataclass(frozen=True)
class Drawn:
    """What of a store is learnt from.

    Attributes:
        store: the frames that a curation keeps, and the videos that they are of.
        weights: float64 [len(store)], how often each is drawn, mean 1.
        hash: of what was decided; a run resumes on that alone.
        facts: for model.json.
        copies: operation that is not learnt from -> those learnt from whose recordings show the same.
        apart: from what was tested on it was kept apart; None where it was not.
    """

    store: FrameStore
    weights: np.ndarray
    hash: str
    facts: Mapping[str, Any]
    copies: Mapping[str, set[str]]
    apart: Apart | None


@dataclass(frozen=True)
class RunFrames:
    """All frames of the datasets that a run had, flagged ones too.

    Attributes:
        store: its videos under what the run calls them.
        operations: what the run calls the operation of each of the store's videos.
        labels: kind -> labels of the store's videos.
    """

    store: FrameStore
    operations: tuple[str, ...]
    labels: Mapping[str, Labels]

    @classmethod
    def of(cls, folder: Path) -> RunFrames:
        """As they lie on this machine now; missing shards are built."""
        config = settings_of(folder)
        data = DataSettings.of(config)
        names = Pseudonyms.open(recorded_mode(config.get("run")), data.store)
        datasets = open_datasets(Card.from_dict(config["dataset"]), data, names)
        store = joined_store(datasets, data)
        videos = [replace(video, id=names.named(video.id)) for video in store.videos]
        labels = {
            kind: replace(each, values={names.named(video): values for video, values in each.values.items()})
            for kind, each in joined_labels(datasets).items()
        }
        operations = tuple(names.hide(video.operation) for video in videos)
        return cls(FrameStore(videos, store.set_aside, flagged=True), operations, labels)


def store_of(folder: Path) -> FrameStore:
    """All frames of the datasets that a run had, flagged ones too, its videos under what the run calls them."""
    return RunFrames.of(folder).store


def places_in(store: FrameStore, curation: Curation) -> np.ndarray:
    """int64 [n]: the position of each frame of a curation in the store of its run, -1 where it is not there.

    Raises:
        SurgdinoError: no frame is there.
    """
    videos = {video.id: place for place, video in enumerate(store.videos)}
    found = np.full(len(curation), -1, np.int64)
    for k, video in enumerate(curation.videos):
        if video in videos:
            rows = slice(*np.searchsorted(curation.video_of, (k, k + 1)).tolist())
            positions, numbers, _ = store.of_video(videos[video])
            at = np.searchsorted(numbers, curation.frame[rows]).clip(max=len(numbers) - 1)
            found[rows] = np.where(numbers[at] == curation.frame[rows], positions[at], -1)
    if (found < 0).all():
        raise SurgdinoError("the curation is of other frames than those there are now", fix="run surgdino curate again")
    return found


def curated(store: FrameStore, folder: Path, names: Pseudonyms) -> Drawn:
    """The frames of a store that a curation keeps; it may be of more videos than these.

    Raises:
        SurgdinoError: it is of other frames, or keeps none of these.
    """
    curation = read_curation(folder)
    places = {video: place for place, video in enumerate(curation.videos)}
    starts = np.searchsorted(curation.video_of, np.arange(len(curation.videos) + 1))
    weights = np.zeros(len(store))
    for place, video in enumerate(store.videos):
        shown = names.named(video.id)
        if curation.facts.get("videos", {}).get(shown) != f"{video.shard.crc:08x}" or shown not in places:
            raise SurgdinoError(
                f"the curation is of other frames than those of {shown}",
                file=folder,
                expected="the videos and the data settings that it was made with",
                found="its stored frames have changed since" if shown in places else "it does not have this video",
                fix=None if shown in places else nearest(shown, places),
            )
        positions, numbers, _ = store.of_video(place)
        span = slice(int(starts[places[shown]]), int(starts[places[shown] + 1]))
        weights[positions] = curation.weight[span][np.searchsorted(curation.frame[span], numbers)]
    kept = weights > 0
    if not kept.any():
        raise SurgdinoError("the curation keeps none of these frames", file=folder, fix="check data.exclude")
    facts = {key: curation.facts[key] for key in _RECORDED if key in curation.facts}
    facts |= {"frames": int(kept.sum()), "of": len(store)}
    console.field("curation", f"{int(kept.sum()):,} of {len(store):,} frames ({folder})")
    digest = hashlib.sha256(weights.astype("<f4").tobytes()).hexdigest()[:16]
    drawn = store.only(kept)
    shown = {names.hide(video.operation): video.operation for video in drawn.videos}
    return Drawn(
        store=drawn,
        weights=weights[kept] / weights[kept].mean(),
        hash=digest,
        facts=facts,
        copies=copies_of(curation, shown, {names.hide(video.operation): video.operation for video in store.videos}),
        apart=_apart(curation, shown),
    )


def copies_of(curation: Curation, learnt: Mapping[str, str], names: Mapping[str, str]) -> dict[str, set[str]]:
    """`Drawn.copies`.

    Args:
        learnt, names: what is shown of an operation -> its name, of those learnt from and of all that the run has.
    """
    operation_of = dict(zip(curation.videos, curation.operations, strict=True))
    found: dict[str, set[str]] = {}
    for each in curation.facts.get("copies") or ():
        pair = operation_of[each["copy"]], operation_of[each["of"]]
        for other, own in (pair, pair[::-1]):
            if own in learnt and other not in learnt:
                found.setdefault(names.get(other, other), set()).add(learnt[own])
    return found


def _apart(curation: Curation, learnt: Mapping[str, str]) -> Apart | None:
    """What `against` left out of operations that are learnt from all the same, and how near the rest comes."""
    facts = curation.facts.get("against")
    if not facts or facts["cosine"] is None:
        return None
    resembling = curation.reason == RESEMBLES
    shares = []
    for operation, name in learnt.items():
        rows = np.isin(curation.video_of, [k for k, each in enumerate(curation.operations) if each == operation])
        if (rows & resembling).any():
            shares.append((name, round(float(resembling[rows].mean()), 4)))
    told = {key: facts[key] for key in ("of", "frames", "cosine", "nearest", "backbone")}
    return Apart(**told, operations=tuple(facts["operations"]), left_out=tuple(shares))
