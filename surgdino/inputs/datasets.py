"""The datasets of one pretraining, `data.root` and those of `data.also`, and one frame store for all of them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from surgdino.datasets.card import Card, Recordings, load_card
from surgdino.datasets.manifest import Manifest
from surgdino.datasets.overlap import part_operations, published_tests, told_by_names
from surgdino.errors import SurgdinoError, first_of
from surgdino.frames.store import FrameStore, StoreSettings, build_store
from surgdino.inputs.settings import AlsoSettings, DataSettings, excluded_operations, not_empty, open_whole, part_of
from surgdino.paths import safe_name
from surgdino.runs.names import Pseudonyms
from surgdino.wording import counted

_SHOWN = 4


@dataclass(frozen=True)
class RunDataset:
    """One of the datasets of a run.

    Attributes:
        card: of the dataset.
        manifest: the videos to learn from.
        held_back: operations that the dataset has, but that its split keeps for validation or test.
        prefix: put before its video ids, so that no two videos of the run share one; empty for `data.root`.
        folder: its part of the frame store.
        settings: what its stored frames look like.
        recordings: whether they are whole operations.
    """

    card: Card
    manifest: Manifest
    held_back: frozenset[str]
    prefix: str
    folder: Path
    settings: StoreSettings
    recordings: Recordings = "whole"


def open_datasets(card: Card, data: DataSettings, names: Pseudonyms | None = None) -> list[RunDataset]:
    """The dataset of `data.root`, then those of `data.also`, without what any of them excludes.

    Args:
        names: takes in all of their videos.
    """
    roots = Counter(entry.root.expanduser().resolve() for entry in data.selections)
    for root, times in roots.items():
        if times > 1:
            what = f"data.root and data.also name this folder {times} times"
            raise SurgdinoError(what, file=root, fix="name it once")
    cards = [card, *(load_card(entry.dataset) for entry in data.also)]
    called = [_name(cards, place) for place in range(len(cards))]
    prefixes = [f"{name}/" if place else "" for place, name in enumerate(called)]
    whole = [
        open_whole(card, entry, names, prefix)
        for card, entry, prefix in zip(cards, data.selections, prefixes, strict=True)
    ]
    parts = [part_of(manifest, entry) for manifest, entry in zip(whole, data.selections, strict=True)]
    excluded = excluded_operations(parts, data.exclude)
    for part, also in zip(parts[1:], data.also, strict=True):
        excluded |= excluded_operations([part], also.exclude)
    datasets = []
    for place, (card, entry, part) in enumerate(zip(cards, data.selections, parts, strict=True)):
        datasets.append(
            RunDataset(
                card=card,
                manifest=not_empty(part.without(excluded)),
                held_back=_held_back(card, entry, whole[place]),
                prefix=prefixes[place],
                # Shards are named by dataset and video: two folders of the same dataset would overwrite each other's.
                folder=data.store if called[place] == card.name else data.store / safe_name(called[place]),
                settings=replace(data.store_settings, fps=entry.fps or data.fps),
                recordings=entry.recordings or card.recordings,
            )
        )
    return datasets


def _name(cards: Sequence[Card], place: int) -> str:
    """`cholec80`, and `cholec80-2` for a second folder of it."""
    earlier = sum(other.name == cards[place].name for other in cards[:place])
    return f"{cards[place].name}-{earlier + 1}" if earlier else cards[place].name


def _held_back(card: Card, entry: DataSettings | AlsoSettings, whole: Manifest) -> frozenset[str]:
    if entry.part is None:
        return frozenset()
    held_back = {video.operation for video in whole.videos if video.split not in (None, entry.part)}
    if isinstance(entry.split, str) and card.videos:  # a folder may hold the training part alone
        held_back |= part_operations(card, entry.split) - part_operations(card, entry.split, entry.part)
    return frozenset(held_back)


def without(datasets: Sequence[RunDataset], operations: Collection[str]) -> list[RunDataset]:
    """The datasets without some operations, whichever of them these are in; one of which nothing is left is refused."""
    return [replace(each, manifest=not_empty(each.manifest.without(operations))) for each in datasets]


def joined_store(datasets: Sequence[RunDataset], data: DataSettings, *, progress: bool = True) -> FrameStore:
    """One store of all frames, in the order of the datasets; missing shards are built.

    The share of bad videos that is refused is each dataset's own. Two videos of the same id are refused.
    """
    share, workers = data.max_bad_share, data.worker_count
    build = partial(build_store, workers=workers, max_bad_share=share, progress=progress, engine=data.engine)
    stores = [build(each.manifest, each.folder, each.settings) for each in datasets]
    pairs = list(zip(datasets, stores, strict=True))
    videos = [replace(video, id=each.prefix + video.id) for each, store in pairs for video in store.videos]
    video, times = Counter(video.id for video in videos).most_common(1)[0] if videos else ("", 0)
    if times > 1:
        raise SurgdinoError(f"two videos would be called {video}", file=data.root, fix="rename this one")
    set_aside = {each.prefix + video: why for each, store in pairs for video, why in store.set_aside.items()}
    return FrameStore(videos, set_aside)


def data_hash(datasets: Sequence[RunDataset]) -> str:
    """Of which recordings these are, and of how densely each dataset beyond the first is sampled."""
    if len(datasets) == 1:
        return datasets[0].manifest.fingerprint()
    parts = [(each.manifest.fingerprint(), each.settings.fps) for each in datasets]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def summaries(datasets: Sequence[RunDataset], store: FrameStore) -> list[dict[str, Any]]:
    """Each dataset for model.json: name, licence, operations and frames that are in the store."""
    rows = []
    for each in datasets:
        ids = {each.prefix + video.id for video in each.manifest.videos}
        places = [place for place, video in enumerate(store.videos) if video.id in ids]
        rows.append(
            {
                "name": each.card.name,
                "licence": each.card.licence or None,
                "data_hash": each.manifest.fingerprint(),
                "fps": each.settings.fps,
                "operations": sorted({store.videos[place].operation for place in places}),
                "frames": sum(len(store.of_video(place)[0]) for place in places),
            }
        )
    return rows


def licence_note(datasets: Sequence[RunDataset]) -> str | None:
    """The licence of a single dataset, or those of all with their names."""
    if len(datasets) == 1:
        return datasets[0].card.licence or None
    return "; ".join(f"{each.card.name}: {each.card.licence or 'not known'}" for each in datasets)


def overlap_warnings(datasets: Sequence[RunDataset]) -> Iterator[str]:
    """A line each on operations in several datasets, and on test operations that come in through another dataset."""
    counts = Counter(operation for each in datasets for operation in each.manifest.operations)
    shared = sorted(operation for operation, times in counts.items() if times > 1)
    if shared:
        one = "operation is in more than one dataset and counts once"
        several = "operations are in more than one dataset and count once"
        yield f"{counted(len(shared), one, several)}: {first_of(shared, _SHOWN)}"
    for each in datasets:
        leaking = sorted(each.held_back & counts.keys())
        if leaking:
            yield (
                f"{len(leaking)} operations that the split of {each.card.name} keeps for validation or test come in "
                f"through another dataset: {first_of(leaking, _SHOWN)}; name them in data.exclude to leave them out"
            )


def no_test_after(datasets: Sequence[RunDataset], seen: Collection[str]) -> Iterator[str]:
    """What a backbone cannot be tested on after this training, in a line on public and one on own operations.

    Args:
        seen: all that it was trained on and that chose among its states, with what its initial weights had seen.
    """
    published: dict[bool, dict[str, list[str]]] = {True: {}, False: {}}
    for test in published_tests(frozenset(seen)):
        if test.shared != 0:
            published[test.shared is not None].setdefault(test.dataset, []).append(test.split)
    shared, unknown = (
        "; ".join(f"{name} ({', '.join(of)})" for name, of in published[k].items()) for k in (True, False)
    )
    if shared:
        yield f"no test any more on {shared}; data.exclude=[test-of:DATASET/SPLIT] leaves one out"
    if unknown:
        yield f"nobody knows whether it may still be tested on {unknown}"
    own = [each for each in datasets if not each.card.videos]
    if own and not any(each.held_back for each in own):
        count = len({operation for operation in seen if not told_by_names(operation, operation)})
        keeps = "data.exclude=[...], or data.split=fifth data.part=train, keeps some for it"
        yield f"no test any more on these {count} operations of your own; {keeps}"
