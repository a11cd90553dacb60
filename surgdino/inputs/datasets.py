"""The datasets of one pretraining, `data.root` and those of `data.also`, and the one frame store of all."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from surgdino.datasets.card import Card, load_card
from surgdino.datasets.manifest import Manifest
from surgdino.datasets.overlap import part_operations
from surgdino.errors import SurgdinoError
from surgdino.frames.store import FrameStore, StoreSettings, build_store
from surgdino.inputs.settings import AlsoSettings, DataSettings, excluded_operations, not_empty, open_whole, part_of

_SHOWN = 4


@dataclass(frozen=True)
class Source:
    """One dataset of a run.

    Attributes:
        card: of the dataset.
        manifest: the videos that are learnt from.
        held_back: operations that the dataset has, but that its split keeps for validation or test.
        prefix: put before its video ids, so that no two videos of the run share one; empty for `data.root`.
        folder: its part of the frame store.
        settings: what its stored frames look like.
    """

    card: Card
    manifest: Manifest
    held_back: frozenset[str]
    prefix: str
    folder: Path
    settings: StoreSettings


def sources_of(cfg: Mapping[str, Any], data: DataSettings) -> list[Source]:
    """The datasets of a configuration, `data.root` first, less what any of them excludes.

    Raises:
        SurgdinoError: no such folder, card or split, an exclusion that matches nothing, or a dataset of which nothing
            is left.
    """
    cards = [Card.from_dict(cfg["dataset"]), *(load_card(entry.dataset) for entry in data.also)]
    asked: list[DataSettings | AlsoSettings] = [data, *data.also]
    _refuse_twice(asked)
    whole = [open_whole(card, entry) for card, entry in zip(cards, asked, strict=True)]
    parts = [part_of(manifest, entry) for manifest, entry in zip(whole, asked, strict=True)]
    excluded = excluded_operations(parts, data.exclude)
    for part, also in zip(parts[1:], data.also, strict=True):
        excluded |= excluded_operations([part], also.exclude)
    sources = []
    for place, (card, entry, part) in enumerate(zip(cards, asked, parts, strict=True)):
        earlier = sum(other.name == card.name for other in cards[:place])
        name = f"{card.name}-{earlier + 1}" if earlier else card.name
        sources.append(
            Source(
                card=card,
                manifest=not_empty(part.without(excluded)),
                held_back=_held_back(card, entry, whole[place]),
                prefix=f"{name}/" if place else "",
                # Shards are named by dataset and video: two folders of the same dataset would undo each other's.
                folder=data.store / name if earlier else data.store,
                settings=replace(data.store_settings, fps=entry.fps or data.fps),
            )
        )
    return sources


def _refuse_twice(asked: Sequence[DataSettings | AlsoSettings]) -> None:
    roots = Counter(entry.root.expanduser().resolve() for entry in asked)
    for root, times in roots.items():
        if times > 1:
            raise SurgdinoError(
                f"data.root and data.also name this folder {times} times", file=root, fix="name it once"
            )


def _held_back(card: Card, entry: DataSettings | AlsoSettings, whole: Manifest) -> frozenset[str]:
    if entry.part is None:
        return frozenset()
    held_back = {video.operation for video in whole.videos if video.split not in (None, entry.part)}
    if isinstance(entry.split, str) and card.videos:  # a folder may hold the training part alone
        held_back |= part_operations(card, entry.split) - part_operations(card, entry.split, entry.part)
    return frozenset(held_back)


def less(sources: Sequence[Source], operations: Collection[str]) -> list[Source]:
    """The sources without some operations, whichever dataset they are filmed in.

    Raises:
        SurgdinoError: nothing is left of one of them.
    """
    return [replace(source, manifest=not_empty(source.manifest.without(operations))) for source in sources]


def joined_store(sources: Sequence[Source], data: DataSettings, *, progress: bool = True) -> FrameStore:
    """One store of all frames, in the order of the sources; shards that are missing are built.

    Raises:
        SurgdinoError: see `build_store`; the share of bad videos is each dataset's own. Or two videos get the same id.
    """
    stores = [
        build_store(
            source.manifest,
            source.folder,
            source.settings,
            workers=data.worker_count,
            max_bad_share=data.max_bad_share,
            progress=progress,
        )
        for source in sources
    ]
    videos = [replace(v, id=s.prefix + v.id) for s, store in zip(sources, stores, strict=True) for v in store.videos]
    video, times = Counter(video.id for video in videos).most_common(1)[0] if videos else ("", 0)
    if times > 1:
        raise SurgdinoError(f"two videos would be called {video}", file=data.root, fix="rename this one")
    set_aside = {
        s.prefix + v: why for s, store in zip(sources, stores, strict=True) for v, why in store.set_aside.items()
    }
    return FrameStore(videos, set_aside)


def data_hash(sources: Sequence[Source]) -> str:
    """Of which recordings these are, and of how densely each dataset beyond the first is sampled."""
    if len(sources) == 1:
        return sources[0].manifest.fingerprint()
    told = [(source.manifest.fingerprint(), source.settings.fps) for source in sources]
    return hashlib.sha256(repr(told).encode()).hexdigest()[:16]


def described(sources: Sequence[Source], store: FrameStore) -> list[dict[str, Any]]:
    """Each dataset for model.json: name, licence, operations and frames that are in the store."""
    return [_described(source, store) for source in sources]


def _described(source: Source, store: FrameStore) -> dict[str, Any]:
    ids = {source.prefix + video.id for video in source.manifest.videos}
    places = [place for place, video in enumerate(store.videos) if video.id in ids]
    return {
        "name": source.card.name,
        "licence": source.card.licence or None,
        "data_hash": source.manifest.fingerprint(),
        "fps": source.settings.fps,
        "operations": sorted({store.videos[place].operation for place in places}),
        "frames": sum(len(store.of_video(place)[0]) for place in places),
    }


def licence_note(sources: Sequence[Source]) -> str | None:
    """The licence of a single dataset, or those of all with their names."""
    if len(sources) == 1:
        return sources[0].card.licence or None
    return "; ".join(f"{source.card.name}: {source.card.licence or 'not known'}" for source in sources)


def remarks(sources: Sequence[Source]) -> Iterator[str]:
    """What should be known of datasets that are learnt from together, a line each."""
    counts = Counter(operation for source in sources for operation in source.manifest.operations)
    shared = sorted(operation for operation, datasets in counts.items() if datasets > 1)
    if shared:
        yield f"{len(shared)} operations are in more than one dataset and count once: {_some(shared)}"
    for source in sources:
        leaking = sorted(source.held_back & counts.keys())
        if leaking:
            yield (
                f"{len(leaking)} operations that the split of {source.card.name} keeps for validation or test come in "
                f"through another dataset: {_some(leaking)}; name them in data.exclude to leave them out"
            )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
