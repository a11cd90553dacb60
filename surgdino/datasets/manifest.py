"""The Manifest: what a dataset folder holds, videos and labels, with nothing decoded.

It is the first narrow waist: adapters build it, the frame store and the heads read it, nobody else looks into folders.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from surgdino.datasets.labels import FrameLabels, SecondLabels
from surgdino.datasets.masks import VideoMasks
from surgdino.errors import SurgdinoError


@dataclass(frozen=True)
class Video:
    """One recording.

    Attributes:
        id: unique in its dataset, such as `video01`; names the shard and the rows of every table.
        operation: the operation it shows, shared between datasets that film the same one (`camma/1`).
        path: the video file, or a folder of images.
        fps: nominal frames per second where the dataset defines one (frame numbers in label files count in it).
        frame_count: frames that the label files promise; None where nothing promises any.
        split: the part of the chosen split that it belongs to (`train`, `val`, `test`), or None.
    """

    id: str
    operation: str
    path: Path
    fps: float | None = None
    frame_count: int | None = None
    split: str | None = None

    @property
    def is_image_folder(self) -> bool:
        """True for datasets released as images; they go through the same frame store."""
        return self.path.is_dir()


@dataclass(frozen=True)
class Problem:
    """Something wrong with the folder, in the same words as an error: file, row, expected, found, what to do."""

    severity: Literal["error", "warning"]
    message: str
    file: Path | str | None = None
    place: str | int | None = None
    expected: object = None
    found: object = None
    fix: str | None = None

    def error(self) -> SurgdinoError:
        """The problem as the exception to raise where it cannot be lived with."""
        return SurgdinoError(
            self.message, file=self.file, place=self.place, expected=self.expected, found=self.found, fix=self.fix
        )


@dataclass(frozen=True)
class Labels:
    """Labels of one task, keyed by (video id, 0-based frame number).

    Attributes:
        task: `phase`, `tools`, `triplet`, `instrument`, `verb`, `target` or `masks`.
        classes: class names in the order of their ids.
        values: video id -> frame number -> class id (phase), a tuple of 0/1 with one entry a class (tools, triplet and
            its parts), or the files that hold the masks. Phases may be known by second instead.
    """

    task: str
    classes: tuple[str, ...]
    values: Mapping[str, FrameLabels | SecondLabels | VideoMasks] = field(repr=False)


@dataclass(frozen=True)
class Manifest:
    """All that later rooms know of a dataset.

    Attributes:
        dataset: its card's name.
        root: its folder.
        videos: in the order of their names or numbers.
        labels: task -> labels.
        problems: what is amiss, errors and warnings.
        elsewhere: operations that lie in the folder too, but that the options leave out.
    """

    dataset: str
    root: Path
    videos: tuple[Video, ...]
    labels: dict[str, Labels] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    elsewhere: frozenset[str] = frozenset()

    def __getitem__(self, video_id: str) -> Video:
        for video in self.videos:
            if video.id == video_id:
                return video
        raise KeyError(video_id)

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
        rows = [(v.id, v.operation, _size(v.path)) for v in sorted(self.videos, key=lambda v: v.id)]
        return hashlib.sha256(json.dumps([self.dataset, rows]).encode()).hexdigest()[:16]


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(1 for _ in path.iterdir())
    return path.stat().st_size if path.exists() else -1
