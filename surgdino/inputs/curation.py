"""What `curate` reads: all frames of an archive, embedded and judged one by one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from surgdino import console
from surgdino.crops.workers import load
from surgdino.curation.embeddings import BLOCK, write_unit
from surgdino.curation.unusable import QUALITY, quality
from surgdino.datasets.manifest import Labels
from surgdino.frames.engines import LOCAL, processes_for, spread
from surgdino.frames.store import FrameStore, StoredVideo
from surgdino.inputs.datasets import RunDataset
from surgdino.inputs.settings import DataSettings
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
            phase=None if phases is None else phase_of(store, phases),
        )

    def of_operations(self, operations: Collection[str]) -> np.ndarray:
        """bool [n]: the frames of some operations, by name."""
        return np.array([video.operation in operations for video in self.store.videos])[self.video_of]

    def checksums(self) -> dict[str, str]:
        """Shown name of each video -> checksum of its shard: of which frames a curation is."""
        return {name: f"{v.shard.crc:08x}" for name, v in zip(self.videos, self.store.videos, strict=True)}


def phase_of(store: FrameStore, phases: Labels) -> np.ndarray:
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

    def __call__(self, index: range) -> Tensor:
        rows = np.array([quality(self.store.read(i), self.store.content(i)) for i in index], QUALITY)
        return torch.from_numpy(rows.view(np.uint8).reshape(len(rows), -1))


def judge(archive: Archive, folder: Path, workers: int, data: DataSettings) -> np.ndarray:
    """QUALITY [n] of all frames; a file a video in `folder`, so that a stopped run goes on and the next one reads.

    Args:
        workers: processes that read the frames of one video, where this machine does the work.
        data: says where it is done.
    """
    videos, workers = archive.store.videos, workers if data.engine == LOCAL else 0
    files = [FeatureFile.of(folder.absolute(), video.shard, (), QUALITY) for video in videos]  # type: ignore[arg-type]
    missing = {
        file.path: (video, file, workers) for video, file in zip(videos, files, strict=True) if not file.is_whole()
    }
    size = processes_for(data.worker_count, len(missing))
    with console.bar("pictures", sum(len(job[0].shard) for job in missing.values()), stays=False) as bar:
        for path in spread(data.engine, size, _judge_video, missing, {folder.absolute()}) if missing else ():
            bar.advance(len(missing[path][0].shard))
    return np.concatenate([file.open() for file in files])


def _judge_video(video: StoredVideo, file: FeatureFile, workers: int) -> None:
    store = FrameStore([video], flagged=True)
    jobs = [range(start, min(start + _AT_ONCE, len(store))) for start in range(0, len(store), _AT_ONCE)]
    with file.writer() as write:
        size = _AT_ONCE * QUALITY.itemsize
        for rows in load(_Judge(store), jobs, min(workers, len(jobs)), result_bytes=size):
            write(rows.numpy().reshape(-1).view(QUALITY))
