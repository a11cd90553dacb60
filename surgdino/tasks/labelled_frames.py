"""Labelled frames: the frames of the store that have a label of the task, video by video."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from surgdino.datasets.manifest import Labels, Manifest
from surgdino.datasets.masks import FrameMasks, VideoMasks
from surgdino.errors import SurgdinoError
from surgdino.frames.store import FrameStore


@dataclass(frozen=True)
class LabelledFrames:
    """n frames of v videos, each video's together and in the order of time.

    Black frames and frames outside the body are among them: every labelled frame counts, as in the papers.

    Attributes:
        store: where the pictures are, flagged frames included.
        index: int64 [n], positions in the store.
        videos: ids of the v videos.
        starts: int64 [v + 1]; the frames of video k are `starts[k]` to `starts[k + 1]`.
        operations: video id -> the operation it shows.
        numbers: int64 [n], frame numbers in their source.
        times: float64 [n], seconds from the first frame of the source.
        targets: [n] class ids or [n, classes] of 0/1. None for masks, which are read one by one, and where nothing is
            labelled.
        labels: the labels they were taken from; None where nothing is labelled.
        beside: kind -> all labels of the same dataset, for pictures.
    """

    store: FrameStore = field(repr=False)
    index: np.ndarray
    videos: tuple[str, ...]
    starts: np.ndarray
    operations: Mapping[str, str] = field(repr=False)
    numbers: np.ndarray
    times: np.ndarray
    targets: np.ndarray | None = None
    labels: Labels | None = field(default=None, repr=False)
    beside: Mapping[str, Labels] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.index)

    def span(self, place: int) -> slice:
        """Where the frames of `videos[place]` are."""
        return slice(int(self.starts[place]), int(self.starts[place + 1]))

    @property
    def video_of(self) -> np.ndarray:
        """int64 [n], the place in `videos` of each frame's video."""
        return np.repeat(np.arange(len(self.videos)), np.diff(self.starts))

    def truths(self) -> dict[str, np.ndarray]:
        """Video id -> its targets."""
        if self.targets is None:
            raise ValueError("these frames have no targets as arrays")
        return {video: self.targets[self.span(place)] for place, video in enumerate(self.videos)}

    def class_ids(self) -> np.ndarray:
        """int64 [n], of frames that have one class each."""
        if self.targets is None:
            raise ValueError("these frames have no targets as arrays")
        return self.targets.astype(np.int64)

    def numbers_of(self) -> dict[str, np.ndarray]:
        """Video id -> its frames' numbers, int64."""
        return {video: self.numbers[self.span(place)] for place, video in enumerate(self.videos)}

    def masks(self, i: int) -> FrameMasks:
        """Which mask files frame `i` has; of frames whose labels are masks."""
        video = self.videos[int(np.searchsorted(self.starts, i, side="right")) - 1]
        values = self.labels.values[video] if self.labels else None
        if not isinstance(values, VideoMasks):
            raise ValueError("these frames have no masks")
        return values[int(self.numbers[i])]

    def near(self, video: str, seconds: Iterable[float]) -> list[tuple[float, np.ndarray]]:
        """The frames of a video nearest to some moments, none twice: (second, uint8 [H, W, 3] RGB)."""
        span = self.span(self.videos.index(video))
        times = self.times[span]
        rows = dict.fromkeys(int(np.abs(times - second).argmin()) for second in seconds)
        return [(float(times[row]), self.store.read(int(self.index[span][row]))) for row in rows]

    def of_videos(self, videos: Iterable[str]) -> LabelledFrames:
        """The frames of some of the videos, in this order of videos."""
        places = [self.videos.index(video) for video in videos]
        rows = np.concatenate([np.arange(*self.span(k).indices(len(self))) for k in places] or [np.empty(0, np.int64)])
        return LabelledFrames(
            store=self.store,
            index=self.index[rows],
            videos=tuple(self.videos[k] for k in places),
            starts=np.cumsum([0, *(int(self.starts[k + 1] - self.starts[k]) for k in places)]),
            operations={self.videos[k]: self.operations[self.videos[k]] for k in places},
            numbers=self.numbers[rows],
            times=self.times[rows],
            targets=None if self.targets is None else self.targets[rows],
            labels=self.labels,
            beside=self.beside,
        )


def labelled_frames(manifest: Manifest, store: FrameStore, task: str) -> LabelledFrames:
    """The frames of the manifest's videos that have a label of `task` and are in the store.

    Args:
        manifest: which videos.
        store: of these videos, and perhaps others.
        task: a key of `manifest.labels`, such as `phase` or `masks`.

    Raises:
        SurgdinoError: the dataset has no such labels.
    """
    labels = labels_of(manifest, task)
    store = store.select(flagged=True)
    wanted = {video.id for video in manifest.videos}
    parts, targets = [], []
    for place, video in enumerate(store.videos):
        values = labels.values.get(video.id)
        if video.id not in wanted or values is None:
            continue
        index, numbers, times = store.of_video(place)
        if isinstance(values, VideoMasks):
            present = np.isin(numbers, values.numbers)
        else:
            present, found = values.at(numbers, times)
            targets.append(found[present])
        if present.any():
            parts.append((video, index[present], numbers[present], times[present]))
    joined = _join(store, parts, np.concatenate(targets) if targets else None, labels)
    return replace(joined, beside=manifest.labels)


def every_frame(store: FrameStore) -> LabelledFrames:
    """All frames of a store, without labels: what is predicted."""
    store = store.select(flagged=True)
    return _join(store, [(video, *store.of_video(place)) for place, video in enumerate(store.videos)], None, None)


def labels_of(manifest: Manifest, task: str) -> Labels:
    """The labels of that kind.

    Raises:
        SurgdinoError: the dataset has none; those that it has are named.
    """
    labels = manifest.labels_for(task)
    if labels is None:
        raise SurgdinoError(
            f"dataset={manifest.dataset} has no labels of kind {task!r} here",
            file=manifest.root,
            expected=f"labels of kind {task!r}",
            found=", ".join(manifest.labels) or "no labels at all",
            fix="check data.root and the label files (surgdino verify), or choose another task",
        )
    return labels


def _join(store: FrameStore, parts: list, targets: np.ndarray | None, labels: Labels | None) -> LabelledFrames:
    empty = np.empty(0, np.int64)
    return LabelledFrames(
        store=store,
        index=np.concatenate([part[1] for part in parts] or [empty]),
        videos=tuple(part[0].id for part in parts),
        starts=np.cumsum([0, *(len(part[1]) for part in parts)]),
        operations={part[0].id: part[0].operation for part in parts},
        numbers=np.concatenate([part[2] for part in parts] or [empty]),
        times=np.concatenate([part[3] for part in parts] or [empty.astype(np.float64)]),
        targets=targets,
        labels=labels,
    )
