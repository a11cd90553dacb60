"""The Manifest: what a dataset folder holds, videos and labels, with nothing decoded.

Adapters build it; the frame store and the tasks read it; no other room looks into dataset folders. Labels are arrays:
80 videos have 4.6 million labelled frames, too many for dictionaries.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from surgdino.datasets.class_names import class_finder
from surgdino.datasets.files import entries, is_pictures
from surgdino.datasets.masks import VideoMasks
from surgdino.datasets.questions import Asked
from surgdino.errors import SurgdinoError

# Kinds of labels that answer for another where a dataset has them alone.
_INSTEAD = {"tools": "instrument", "objects": "masks"}
_MARK = re.compile(r"~[0-9a-f]{8}(?=/|$)")


def place_of(operation: str) -> str:
    """What people call an operation: `OP7` of `own/OP7~1f0c9a3e`, `1` of `camma/1`."""
    return _MARK.sub("", operation.partition("/")[2] or operation)


@dataclass(frozen=True)
class Video:
    """One recording.

    Attributes:
        id: unique in its dataset, such as `video01`; names the shard and the rows of every table.
        operation: the operation it shows, shared between datasets that film the same one (`camma/1`).
        path: the video file, or a folder of images.
        fps: nominal frames per second where the dataset defines one (frame numbers in label files count in it).
        frame_count: number of frames according to the label files; None where they do not say.
        split: the part of the chosen split that it belongs to (`train`, `val`, `test`), or None.
        formerly: what earlier versions called the operation.
        pictures: files inside `path`, where it is no recording but a set of pictures that have nothing to do with each
            other: frame k is the k-th of them.
        box: (x0, y0, x1, y1) in pixels of the file, half-open, where that part of it is meant alone.
    """

    id: str
    operation: str
    path: Path
    fps: float | None = None
    frame_count: int | None = None
    split: str | None = None
    formerly: tuple[str, ...] = ()
    pictures: tuple[str, ...] = field(default=(), repr=False)
    box: tuple[int, int, int, int] | None = None

    @property
    def recording(self) -> str:
        """A name of this recording that says its operation: the operation's own, where it is all of it."""
        place = place_of(self.operation)
        alone = self.id == place or self.id.endswith(f"/{place}")
        return self.operation if alone else f"{self.operation}/{self.id.rpartition('/')[2]}"

    @property
    def is_image_folder(self) -> bool:
        """True for datasets released as images; they go through the same frame store."""
        return is_pictures(self.path)


@dataclass(frozen=True)
class Problem:
    """Something wrong with the folder; the fields are those of SurgdinoError."""

    severity: Literal["error", "warning"]
    message: str
    file: Path | str | None = None
    place: str | int | None = None
    expected: object = None
    found: object = None
    fix: str | None = None

    @classmethod
    def of(cls, error: SurgdinoError, fix: str | None = None) -> Problem:
        """A caught error as a problem; `fix` is used where the error has none."""
        return cls("error", error.what, error.file, error.place, error.expected, error.found, error.fix or fix)

    def error(self) -> SurgdinoError:
        """The problem as an exception, for callers that cannot continue with it."""
        return SurgdinoError(
            self.message, file=self.file, place=self.place, expected=self.expected, found=self.found, fix=self.fix
        )


class FrameLabels(Mapping[int, Any]):
    """Frame number -> label, read like a dictionary.

    Attributes:
        numbers: int64 [n], ascending frame numbers.
        array: [n] class ids, [n, classes] of 0/1, or [n, most, 3] of questions, in the order of `numbers`.
    """

    def __init__(self, numbers: np.ndarray | Sequence[int], array: np.ndarray) -> None:
        if len(numbers) != len(array) or (np.diff(numbers) <= 0).any():
            raise ValueError("frame numbers must ascend and have one label each")
        self.numbers = np.asarray(numbers, dtype=np.int64)
        self.array = np.asarray(array)

    def __getitem__(self, number: int) -> Any:
        position = int(np.searchsorted(self.numbers, number))
        if position == len(self.numbers) or self.numbers[position] != number:
            raise KeyError(number)
        label = self.array[position]
        return int(label) if label.ndim == 0 else tuple(label.tolist())

    def __iter__(self) -> Iterator[int]:
        return iter(self.numbers.tolist())

    def __len__(self) -> int:
        return len(self.numbers)

    def at(self, numbers: np.ndarray, times: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Labels of many frames at once.

        Args:
            numbers: int64 [m] frame numbers in any order.
            times: ignored; `SecondLabels.at` has the same arguments.

        Returns:
            present bool [m], and the labels [m, ...] of these frames (meaningless where not present).
        """
        numbers = np.asarray(numbers, dtype=np.int64)
        if len(self) == 0:
            return np.zeros(len(numbers), bool), np.zeros((len(numbers), *self.array.shape[1:]), self.array.dtype)
        position = np.minimum(np.searchsorted(self.numbers, numbers), len(self) - 1)
        return self.numbers[position] == numbers, self.array[position]


class SecondLabels:
    """Labels by second; the frames' times say which frames they belong to.

    A frame has the label of the row nearest to it in time, if that is at most half a step away. The step is the median
    distance of the rows, so a row missing from the file leaves its frames without a label.

    Attributes:
        seconds: float64 [n], ascending, from the first frame.
        array: [n] class ids in the order of `seconds`.
        reach: half a step, in seconds.
    """

    def __init__(self, seconds: np.ndarray, array: np.ndarray) -> None:
        if len(seconds) != len(array) or (np.diff(seconds) <= 0).any():
            raise ValueError("seconds must ascend and have one label each")
        self.seconds = np.asarray(seconds, dtype=np.float64)
        self.array = np.asarray(array)
        self.reach = float(np.median(np.diff(self.seconds))) / 2 if len(seconds) > 1 else 0.5

    def __len__(self) -> int:
        return len(self.seconds)

    def at(self, numbers: np.ndarray, times: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Labels of many frames at once, as `FrameLabels.at`.

        Args:
            numbers: int64 [m] frame numbers; ignored.
            times: float64 [m] seconds of those frames from the first.

        Raises:
            ValueError: no times.
        """
        if times is None:
            raise ValueError("labels by second need the frames' times")
        times = np.asarray(times, dtype=np.float64)
        if not len(self):
            return np.zeros(len(times), bool), np.zeros(len(times), self.array.dtype)
        after = np.minimum(np.maximum(np.searchsorted(self.seconds, times), 1), len(self) - 1)
        before = np.maximum(after - 1, 0)
        earlier = np.abs(times - self.seconds[before]) <= np.abs(times - self.seconds[after])
        nearest = np.where(earlier, before, after)
        # Times are rounded to the video's time base, often milliseconds.
        return np.abs(times - self.seconds[nearest]) <= self.reach + 1e-3, self.array[nearest]


class SegmentLabels:
    """Labels of stretches of a video, none overlapping another.

    Attributes:
        starts, ends: float64 [n] ascending, from the first frame; a segment does not hold its end, which is infinite
            where it lasts until the video's end.
        array: [n] class ids.
        by_frame: whether starts and ends are frame numbers; seconds otherwise.
    """

    def __init__(self, starts: np.ndarray, ends: np.ndarray, array: np.ndarray, *, by_frame: bool) -> None:
        self.starts, self.ends = np.asarray(starts, np.float64), np.asarray(ends, np.float64)
        self.array, self.by_frame = np.asarray(array), by_frame

    def __len__(self) -> int:
        return len(self.starts)

    def at(self, numbers: np.ndarray, times: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Labels of many frames at once, as `FrameLabels.at`; by seconds, `times` are needed.

        Raises:
            ValueError: no times.
        """
        places = numbers if self.by_frame else times
        if places is None:
            raise ValueError("labels by second need the frames' times")
        # Times are rounded to the video's time base, often milliseconds.
        places = np.asarray(places, np.float64) + (0 if self.by_frame else 1e-3)
        if not len(self):
            return np.zeros(len(places), bool), np.zeros(len(places), self.array.dtype)
        row = np.searchsorted(self.starts, places, side="right") - 1
        return (row >= 0) & (places < self.ends[row]), self.array[row]


@dataclass(frozen=True)
class Labels:
    """Labels of one task, keyed by (video id, 0-based frame number).

    Attributes:
        task: `phase`, `step`, `tools`, `action`, `triplet`, `instrument`, `verb`, `target`, `masks`, `class` of a
            picture, `clip` (a whole video's), `question`, `instance`, or `objects` (see `surgdino.datasets.objects`).
        classes: class names in the order of their ids.
        values: video id -> frame number -> class id (phase, step, class), a tuple of 0/1 with one entry a class (tools,
            action, triplet and its parts), the files that hold the masks, or a row a pair of question and answer (see
            `questions.py`). Others may be known by second or segment.
        asked: the questions, of labels that answer any.
    """

    task: str
    classes: tuple[str, ...]
    values: Mapping[str, FrameLabels | SecondLabels | SegmentLabels | VideoMasks] = field(repr=False)
    asked: Asked | None = field(default=None, repr=False)

    def in_classes(self, classes: Sequence[str]) -> Labels | None:
        """The same labels by the order and spelling of `classes`; None where those are not the same classes."""
        if self.classes == tuple(classes):
            return self
        find = class_finder(classes)
        places = [place for name in self.classes if (place := find(name)) is not None]
        if sorted(places) != list(range(len(classes))) or len(places) != len(self.classes):
            return None
        names = {name: classes[place] for name, place in zip(self.classes, places, strict=True)}
        order = np.asarray(places)

        def moved(array: np.ndarray) -> np.ndarray:
            if self.asked:
                return np.stack([array[..., 0], moved_ids(array[..., 1]), array[..., 2]], -1)
            if array.ndim > 1:
                return array[:, np.argsort(order)]
            return moved_ids(array)

        def moved_ids(array: np.ndarray) -> np.ndarray:
            return np.where(array < 0, array, order.astype(array.dtype)[array])

        values: dict[str, FrameLabels | SecondLabels | SegmentLabels | VideoMasks] = {}
        for video, found in self.values.items():
            if isinstance(found, VideoMasks):
                frames = {
                    number: replace(frame, files={names[name]: mask for name, mask in frame.files.items()})
                    for number, frame in found.items()
                }
                values[video] = VideoMasks(frames, classes)
            else:
                values[video] = copy(found)
                values[video].array = moved(found.array)
        asked = self.asked and replace(self.asked, kinds={names[each]: kind for each, kind in self.asked.kinds.items()})
        return replace(self, classes=tuple(classes), values=values, asked=asked)


@dataclass(frozen=True)
class Manifest:
    """All that later rooms know of a dataset.

    Attributes:
        dataset: its card's name.
        root: its folder.
        videos: in the order of their names or numbers.
        labels: task -> labels.
        problems: errors and warnings found while reading the folder.
        elsewhere: operations that the folder holds but the options leave out.
        notes: how files without a fixed format were understood, a line each.
        splits: those that its own files define: split -> part -> videos.
    """

    dataset: str
    root: Path
    videos: tuple[Video, ...]
    labels: dict[str, Labels] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    elsewhere: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    splits: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict, repr=False)

    def __getitem__(self, video_id: str) -> Video:
        for video in self.videos:
            if video.id == video_id:
                return video
        raise KeyError(video_id)

    def formerly_recorded(self, video: Video) -> tuple[str, ...]:
        """What earlier versions called this recording."""
        return (f"{self.root.resolve().name}/{video.id}",)

    def names_of(self, video: Video) -> set[str]:
        """All that a setting may call a video or its operation; the last are how a pseudonym is read back."""
        called = {video.id, video.operation, place_of(video.operation), video.recording}
        return called.union(video.formerly, self.formerly_recorded(video))

    def labels_for(self, kind: str) -> Labels | None:
        """The labels of a kind, or those that say the same: the instruments of triplets are tools, and masks show
        objects."""
        return self.labels.get(kind) or self.labels.get(_INSTEAD.get(kind, kind))

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The problems that make results wrong; the others are warnings."""
        return tuple(p for p in self.problems if p.severity == "error")

    @property
    def operations(self) -> tuple[str, ...]:
        """The operations in it, sorted; everything that depends on videos counts in these."""
        return tuple(sorted({v.operation for v in self.videos}))

    def part(self, name: str) -> Manifest:
        """The videos of one part of the chosen split."""
        return replace(self, videos=tuple(v for v in self.videos if v.split == name))

    def without(self, operations: Iterable[str]) -> Manifest:
        """Everything but the given operations."""
        left_out = set(operations)
        return replace(self, videos=tuple(v for v in self.videos if v.operation not in left_out))

    def fingerprint(self) -> str:
        """A hash of which recordings these are (id, operation, size in bytes): the `data hash` of a run."""
        rows = [(v.id, v.operation, len(v.pictures) or _size(v.path)) for v in sorted(self.videos, key=lambda v: v.id)]
        return hashlib.sha256(json.dumps([self.dataset, rows]).encode()).hexdigest()[:16]


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(1 for _ in path.iterdir())
    if is_pictures(path):
        return len(entries(path))
    return path.stat().st_size if path.exists() else -1
