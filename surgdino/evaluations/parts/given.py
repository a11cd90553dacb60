"""What an evaluation is given: the frames of one dataset, who learns and who is tested, and a backbone's features."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from surgdino.datasets.depth import DepthMap
from surgdino.datasets.mask_files import Layer
from surgdino.datasets.masks import Mask
from surgdino.engine.probing.folds import folds
from surgdino.engine.probing.frames import ProbeFrames, even
from surgdino.errors import SurgdinoError
from surgdino.metrics.arrays import nanmean
from surgdino.tasks.features.cache import FeatureCache
from surgdino.tasks.features.files import FeatureRows
from surgdino.tasks.labelled_frames import LabelledFrames

Fold = tuple[np.ndarray, np.ndarray]  # training rows and test rows, int64
LATER = ", later frames of the same operations"


@dataclass(frozen=True)
class Given:
    """One dataset as one evaluation sees it, and one backbone.

    Attributes:
        frames: those that have the labels which the evaluation uses; all, where it uses none.
        tested, learns: bool [n], frames of operations that are tested, and that may be learnt from. Where they are the
            same operations, each is tested by what was learnt from others.
        features: of the backbone.
        first: of the first of all backbones, with which the others are compared.
        columns: of `data.table`: column -> operation -> what it says, where it says anything.
    """

    frames: LabelledFrames
    tested: np.ndarray
    learns: np.ndarray
    features: FeatureCache
    first: FeatureCache
    columns: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @cached_property
    def operations(self) -> np.ndarray:
        """str [n], each frame's."""
        return np.array([self.frames.operations[video] for video in self.frames.videos], str)[self.frames.video_of]

    @property
    def classes(self) -> tuple[str, ...]:
        """Of the labels, in the order of their ids."""
        return self.frames.labels.classes if self.frames.labels else ()

    @cached_property
    def values(self) -> np.ndarray:
        """Of frames that are labelled as a whole: class ids int64 [n], or bool [n, classes] where one may have many."""
        values = self.frames.targets
        assert values is not None  # masks are of another evaluation
        return values.astype(np.int64) if values.ndim == 1 else values > 0

    @property
    def device(self) -> torch.device:
        """Where the backbone is."""
        return self.features.backbone.mask_token.device

    def tokens(self, kind: str = "class", cache: FeatureCache | None = None) -> Tensor:
        """float32 [n, D] class tokens, or [n, 2D] with the means of the patch tokens beside them (`class+mean`).

        Args:
            cache: another backbone's.
        """
        cache = cache or self.features
        found = cache.pooled(self.frames) if kind == "class+mean" else cache.cls(self.frames)
        return torch.from_numpy(found).to(self.device)

    def patches(self) -> FeatureRows:
        """float16 [n, N, D] on disk, the patch tokens after the last block."""
        return self.features.patches(self.frames)

    def folds(self, share: float = 1.0, seed: int = 0) -> Iterator[Fold]:
        """Training and test rows, no operation on both sides.

        Args:
            share: of the operations that may be learnt from, rounded, at least one.
            seed: of the choice.

        Raises:
            SurgdinoError: there is nothing to learn from, or nothing to test.
        """
        found = False
        for train, test in self._folds():
            names = np.unique(self.operations[train])
            if share < 1:
                order = sorted(names, key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).hexdigest())
                train = train[np.isin(self.operations[train], order[: operations_at(share, len(names))])]
            if len(train) and len(test):
                found = True
                yield train, test
        if not found:
            have = f"{len(np.unique(self.operations))} operations with these labels"
            what = "no operation to learn from beside those that are tested"
            raise SurgdinoError(what, expected="at least two, or a split with both parts", found=have)

    def _folds(self) -> Iterator[Fold]:
        rows = np.flatnonzero(self.learns | self.tested)
        if not np.isin(self.operations[self.tested], self.operations[self.learns]).any():
            yield np.flatnonzero(self.learns), np.flatnonzero(self.tested)
            return
        videos = np.array(self.frames.videos, str)[self.frames.video_of]
        every = ProbeFrames(self.frames.index, videos, self.operations, self.frames.times, self.tested)
        yield from folds(every, rows)

    def halves(self) -> Fold:
        """The earlier half of each tested operation's frames, and the later one; whoever tells of these says `LATER`.

        Raises:
            SurgdinoError: no operation has two frames.
        """
        rows = self.of_operations(np.flatnonzero(self.tested)).values()
        times, videos = self.frames.times, self.frames.video_of
        halves = [np.split(at[np.lexsort([times[at], videos[at]])], [len(at) // 2]) for at in rows]
        train, test = (np.concatenate(half) for half in zip(*halves, strict=True))
        if not len(train):
            what = "no operation has an earlier frame to learn from"
            raise SurgdinoError(what, expected="two labelled frames of an operation", found="one of each")
        return train, test

    @cached_property
    def training_operations(self) -> int:
        """The fewest operations that a fold learns from."""
        return min(len(np.unique(self.operations[train])) for train, _ in self.folds())

    def identity(self, compares: bool, tabled: bool = False) -> str:
        """A hash of all that numbers depend on beside the evaluation: frames, labels, operations and weights.

        Args:
            compares: whether the first backbone's features are among it.
            tabled: whether the columns are.
        """
        frames, digest = self.frames, hashlib.sha256()
        shards = {video.id: video.shard.crc for video in frames.store.videos}
        caches = [self.features, *([self.first] if compares else [])]
        facts = [[shards[video] for video in frames.videos], self.classes, [c.identified().name for c in caches]]
        digest.update(repr([*facts, self.operations.tolist()]).encode())
        digest.update(json.dumps(self.columns, sort_keys=True).encode() if tabled else b"")
        for array in (frames.index, frames.starts, frames.numbers, self.tested, self.learns):
            digest.update(np.ascontiguousarray(array).data)
        if frames.targets is not None:
            digest.update(np.ascontiguousarray(frames.targets).data)
        elif frames.labels is not None:
            masks = [frames.masks(i).files.items() for i in range(len(frames))]
            digest.update(repr([(name, _source(mask)) for of_frame in masks for name, mask in of_frame]).encode())
        return digest.hexdigest()[:16]

    def sample(self, count: int) -> np.ndarray:
        """int64, ascending: at most `count` of the tested frames, every operation's evenly over its time."""
        rows = np.flatnonzero(self.tested)
        names = np.unique(self.operations[rows])
        each = [even(rows[self.operations[rows] == name], max(count // len(names), 1)) for name in names]
        return np.sort(even(np.concatenate(each), count)) if each else rows

    def by_operation(self, rows: np.ndarray, values: np.ndarray) -> dict[str, float]:
        """Operation -> the mean of its defined values; `values` [len(rows)] are of the frames `rows`."""
        owners = self.operations[rows]
        return {str(name): float(nanmean(values[owners == name])) for name in np.unique(owners)}

    def of_operations(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Operation -> those of `rows` that show it, sorted by the operation's name."""
        return {str(name): rows[self.operations[rows] == name] for name in np.unique(self.operations[rows])}


def _source(mask: Mask | None) -> object:
    """What tells that a mask has changed: its file's size and date, or the outlines."""
    if isinstance(mask, tuple):
        return tuple(map(_source, mask))
    file = mask.path if isinstance(mask, Layer | DepthMap) else mask
    if not isinstance(file, Path):
        return file
    state = file.stat()
    of_depth = mask.facts if isinstance(mask, DepthMap) else ()
    return file.name, state.st_size, state.st_mtime_ns, mask.name if isinstance(mask, Layer) else "", *of_depth


def operations_at(share: float, count: int) -> int:
    """How many of `count` operations a share is: rounded, at least one."""
    return max(1, round(share * count))
