"""The labels of the probe's frames, whichever the dataset has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np

from surgdino.datasets.manifest import Labels
from surgdino.datasets.masks import FrameMasks, VideoMasks, read_masks
from surgdino.frames.store import FrameStore


@dataclass(frozen=True)
class TaskLabels:
    """A task whose labels are of whole frames.

    Attributes:
        task: as in `Manifest.labels`.
        classes: their names in the order of their ids.
        present: bool [n], frames that have a label.
        values: class ids int64 [n], or 0/1 uint8 [n, classes]; meaningless where not present.
    """

    task: str
    classes: tuple[str, ...]
    present: np.ndarray
    values: np.ndarray

    @property
    def exclusive(self) -> bool:
        """Whether a frame has one class (phase), rather than any number of them (tools)."""
        return self.values.ndim == 1


@dataclass
class MaskLabels:
    """Masks of some of the frames, read when first asked for.

    Attributes:
        classes: in the order of the channels.
        rows: int64 [m], places of the frames that have masks, in the probe's set.
        masks: [m], their files.
        boxes: [m], (x0, y0, x1, y1) of the picture's part that was stored, in its pixels.
    """

    classes: tuple[str, ...]
    rows: np.ndarray
    masks: list[FrameMasks]
    boxes: list[tuple[int, int, int, int]]
    _cover: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    def cover(self, grid: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Which patches a class covers by more than half, and of which classes anything is known.

        Args:
            grid: (rows, columns) of the patches.

        Returns:
            bool [m, classes, rows, columns] and bool [m, classes].

        Raises:
            SurgdinoError: a mask can't be read.
        """
        if grid not in self._cover:
            read = [self._of(place, grid) for place in range(len(self.rows))]
            self._cover[grid] = np.stack([cover for cover, _ in read]), np.stack([known for _, known in read])
        return self._cover[grid]

    def _of(self, place: int, grid: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        masks, known = read_masks(self.masks[place], self.classes)
        x0, y0, x1, y1 = self.boxes[place]
        stored = masks[:, y0:y1, x0:x1].astype(np.float32)
        shrunk = [cv2.resize(mask, grid[::-1], interpolation=cv2.INTER_AREA) for mask in stored]
        return np.stack(shrunk) > 0.5, known


def labelled_frames(store: FrameStore, labels: Mapping[str, Labels]) -> np.ndarray:
    """bool [len(store)]: frames that have a label of any task."""
    every = np.arange(len(store))
    found = np.zeros(len(store), bool)
    for of_task in labels.values():
        for rows, numbers, times, values in _by_video(store, every, of_task):
            known = np.isin(numbers, values.numbers) if isinstance(values, VideoMasks) else values.at(numbers, times)[0]
            found[rows] |= known
    return found


def frame_labels(store: FrameStore, rows: np.ndarray, labels: Mapping[str, Labels]) -> list[TaskLabels]:
    """Every task whose labels are of whole frames and that at least one of the frames at `rows` has a label of."""
    found = []
    for task, of_task in labels.items():
        present, values = np.zeros(len(rows), bool), None
        for places, numbers, times, of_video in _by_video(store, rows, of_task):
            if isinstance(of_video, VideoMasks):
                continue
            known, read = of_video.at(numbers, times)
            if values is None:
                values = np.zeros((len(rows), *read.shape[1:]), np.int64 if read.ndim == 1 else np.uint8)
            present[places], values[places] = known, read
        if values is not None and present.any():
            found.append(TaskLabels(task, of_task.classes, present, values))
    return found


def mask_labels(store: FrameStore, rows: np.ndarray, labels: Mapping[str, Labels]) -> MaskLabels | None:
    """The masks of the frames at `rows`, or None where none has any."""
    for of_task in labels.values():
        found: list[tuple[int, FrameMasks, tuple[int, int, int, int]]] = []
        for places, numbers, _, of_video in _by_video(store, rows, of_task):
            if not isinstance(of_video, VideoMasks):
                continue
            box = _box(store, store.video_id(int(rows[places[0]])))
            found += [(int(p), of_video[int(n)], box) for p, n in zip(places, numbers, strict=True) if n in of_video]
        if found:
            places, masks, boxes = zip(*found, strict=True)
            return MaskLabels(of_task.classes, np.array(places), list(masks), list(boxes))
    return None


def _by_video(store: FrameStore, rows: np.ndarray, labels: Labels):
    """(places in `rows`, frame numbers, times, labels) of each video that has labels."""
    videos = np.array([store.video_id(int(i)) for i in rows], dtype=str)
    for video in dict.fromkeys(videos.tolist()):
        if video in labels.values:
            places = np.flatnonzero(videos == video)
            numbers = np.array([store.number(int(i)) for i in rows[places]], dtype=np.int64)
            times = np.array([store.time(int(i)) for i in rows[places]])
            yield places, numbers, times, labels.values[video]


def _box(store: FrameStore, video: str) -> tuple[int, int, int, int]:
    header = next(stored.shard.header for stored in store.videos if stored.id == video)
    x0, y0, x1, y1 = header["content"]["source_box"]
    return x0, y0, x1, y1
