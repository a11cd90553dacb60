"""What `curate` reads, embedded and judged frame by frame, and what `data.curation` makes of a store."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from surgdino import console
from surgdino.config import typed
from surgdino.crops.workers import load
from surgdino.curation.embeddings import BLOCK, write_unit
from surgdino.curation.table import Curation, read_curation
from surgdino.curation.unusable import QUALITY, quality
from surgdino.datasets.card import load_card
from surgdino.datasets.manifest import Labels
from surgdino.errors import SurgdinoError, nearest
from surgdino.frames.store import FrameStore, build_store
from surgdino.inputs.datasets import RunDataset
from surgdino.inputs.settings import AlsoSettings, DataSettings, manifest_of, with_defaults
from surgdino.runs.names import Pseudonyms
from surgdino.tasks.features.cache import FeatureCache
from surgdino.tasks.features.files import FeatureFile
from surgdino.tasks.labelled_frames import every_frame

_AT_ONCE = 64  # frames that a worker judges at a time


@dataclass(frozen=True)
class Archive:
    """All frames of some datasets, flagged ones included, in the order of the joined store.

    Attributes:
        store: of all datasets.
        videos: what is shown of their names.
        video_of: int64 [n].
        operation_of: int64 [n], numbers of operations.
        times: float64 [n], seconds.
        numbers: int64 [n], in the source.
        flags: uint8 [n], of the shards.
        phase: object [n], the class of each frame that has a label, "" for others; None where none has.
    """

    store: FrameStore
    videos: tuple[str, ...]
    operations: tuple[str, ...]
    video_of: np.ndarray
    operation_of: np.ndarray
    times: np.ndarray
    numbers: np.ndarray
    flags: np.ndarray
    phase: np.ndarray | None

    @classmethod
    def of(cls, store: FrameStore, names: Pseudonyms, phases: Labels | None) -> Archive:
        """Of a joined store, and the phases of its videos."""
        store = store.select(flagged=True)
        shards = [video.shard for video in store.videos]
        operations = [video.operation for video in store.videos]
        counts = [len(shard) for shard in shards]
        video_of = np.repeat(np.arange(len(shards)), counts)
        columns = {
            name: np.concatenate([shard.columns[name] for shard in shards]) for name in ("time", "number", "flags")
        }
        return cls(
            store=store,
            videos=tuple(names.named(video.id) for video in store.videos),
            operations=tuple(names.hide(operation) for operation in operations),
            video_of=video_of,
            operation_of=np.unique(operations, return_inverse=True)[1][video_of],
            times=columns["time"],
            numbers=columns["number"].astype(np.int64),
            flags=columns["flags"],
            phase=None if phases is None else _phase_of(store, phases),
        )

    def checksums(self) -> dict[str, str]:
        """Shown name of each video -> checksum of its shard: of which frames a curation is."""
        return {name: f"{v.shard.crc:08x}" for name, v in zip(self.videos, self.store.videos, strict=True)}


def _phase_of(store: FrameStore, phases: Labels) -> np.ndarray:
    """object [n]: the class of each frame, "" where it has no label."""
    classes, found = np.array(phases.classes, object), []
    for place, video in enumerate(store.videos):
        _, numbers, times = store.of_video(place)
        labelled = np.zeros(len(numbers), bool)
        if video.id in phases.values:
            labelled, ids = phases.values[video.id].at(numbers, times)  # type: ignore[union-attr]
        found.append(np.full(len(numbers), "", object))
        if labelled.any():
            found[-1][labelled] = classes[ids[labelled]]
    return np.concatenate(found)


def embed(
    datasets: Sequence[RunDataset], store: FrameStore, cache_of: Callable[[RunDataset], FeatureCache], target: Path
) -> np.ndarray:
    """Class tokens of all frames as unit vectors [n, D], mapped; from the feature cache where it has them.

    Args:
        datasets: in the order of `store`.
        cache_of: dataset -> its `FeatureCache`.
        target: the file.
    """
    rows = []
    for each in datasets:
        ids = {each.prefix + video.id for video in each.manifest.videos}
        rows.append(cache_of(each).pooled_rows(every_frame(store.select([v.id for v in store.videos if v.id in ids]))))
    width = rows[0].shape[1] // 2

    def blocks() -> Iterator[np.ndarray]:
        for of_dataset in rows:
            for start in range(0, len(of_dataset), BLOCK):
                yield of_dataset[start : start + BLOCK][:, :width]

    return write_unit(target, blocks(), sum(map(len, rows)), width)


@dataclass
class _Judge:
    """Positions in the store in, the bytes of QUALITY rows out, uint8 [b, bytes of a row]; runs in the workers."""

    store: FrameStore

    def __call__(self, index: np.ndarray) -> Tensor:
        rows = np.array([quality(self.store.read(int(i)), self.store.content(int(i))) for i in index], QUALITY)
        return torch.from_numpy(rows.view(np.uint8).reshape(len(rows), -1))


def judge(archive: Archive, folder: Path, workers: int) -> np.ndarray:
    """QUALITY [n] of all frames; a file a video in `folder`, so that a stopped run goes on and the next one reads."""
    store = archive.store
    files = [FeatureFile.of(folder, video.shard, (), QUALITY) for video in store.videos]  # type: ignore[arg-type]
    missing = [place for place, file in enumerate(files) if not file.is_whole()]
    with console.bar("pictures", sum(len(store.videos[p].shard) for p in missing), stays=False) as bar:
        done = 0
        for place in missing:
            index, _, _ = store.of_video(place)
            jobs = [index[start : start + _AT_ONCE] for start in range(0, len(index), _AT_ONCE)]
            with files[place].writer() as write:
                size = _AT_ONCE * QUALITY.itemsize
                for rows in load(_Judge(store), jobs, min(workers, len(jobs)), result_bytes=size):
                    write(rows.numpy().reshape(-1).view(QUALITY))
                    bar.update(done := done + len(rows))
    return np.concatenate([file.open() for file in files])


def named_frames(entry: Any, place: str, data: DataSettings) -> tuple[RunDataset, FrameStore]:
    """The frames that `like` or `against` names: a folder, or an entry as in data.also.

    Raises:
        SurgdinoError: neither.
    """
    if isinstance(entry, str) and entry.startswith("dataset:"):
        name = entry.removeprefix("dataset:")
        fix = f"write {place}='{{dataset: {name}, root: ..., split: ..., part: ...}}'"
        raise SurgdinoError("where is this dataset?", place=place, found=entry, fix=fix)
    values = {"dataset": "folder", "root": entry} if isinstance(entry, str) else entry
    if not isinstance(values, Mapping):
        expected = "a folder, or {dataset: ..., root: ...}"
        raise SurgdinoError("unusable setting", place=place, expected=expected, found=entry)
    chosen = typed(AlsoSettings, with_defaults(values), place)
    card = load_card(chosen.dataset)
    manifest = manifest_of(card, chosen)  # type: ignore[arg-type]
    each = RunDataset(card, manifest, frozenset(), "", data.store, data.store_settings)
    store = build_store(manifest, data.store, data.store_settings, workers=data.worker_count, engine=data.engine)
    return each, store.select(flagged=True)


@dataclass(frozen=True)
class Drawn:
    """What of a store is learnt from.

    Attributes:
        store: the frames that a curation keeps.
        weights: float64 [len(store)], how often each is drawn, mean 1.
        hash: of what was decided; a run resumes on that alone.
        facts: for model.json.
    """

    store: FrameStore
    weights: np.ndarray
    hash: str
    facts: Mapping[str, Any]


def places_in(store: FrameStore, curation: Curation, names: Pseudonyms) -> np.ndarray:
    """int64 [n]: the position in a store of each frame of a curation, -1 where it is not there."""
    videos = {names.named(video.id): place for place, video in enumerate(store.videos)}
    found = np.full(len(curation), -1, np.int64)
    for k, video in enumerate(curation.videos):
        if video in videos:
            rows = slice(*np.searchsorted(curation.video_of, (k, k + 1)).tolist())
            positions, numbers, _ = store.of_video(videos[video])
            at = np.searchsorted(numbers, curation.frame[rows]).clip(max=len(numbers) - 1)
            found[rows] = np.where(numbers[at] == curation.frame[rows], positions[at], -1)
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
    facts = {key: curation.facts[key] for key in ("settings", "seed", "keep", "thresholds") if key in curation.facts}
    facts |= {"frames": int(kept.sum()), "of": len(store)}
    console.field("curation", f"{int(kept.sum()):,} of {len(store):,} frames ({folder})")
    digest = hashlib.sha256(weights.astype("<f4").tobytes()).hexdigest()[:16]
    return Drawn(store.only(kept), weights[kept] / weights[kept].mean(), digest, facts)
