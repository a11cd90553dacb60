"""The `data` section of the configuration, and the manifest that it asks for."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from surgdino.config import Names, typed
from surgdino.datasets.card import Card
from surgdino.datasets.manifest import Manifest
from surgdino.datasets.open import open_dataset
from surgdino.datasets.overlap import operations_named
from surgdino.errors import SurgdinoError, nearest
from surgdino.frames.store import StoreSettings

_TEST_OF = "test-of:"


@dataclass(frozen=True)
class AlsoSettings:
    """One entry of `data.also`: a further dataset whose frames are learnt from.

    Attributes:
        dataset: its card's name.
        fps: frames per second to keep; None takes `data.fps`.
        exclude: names as in `data.exclude`; what they name is left out of all datasets, for the same operation may lie
            in several.
        root, split, part, operation_pattern, labels, organ, rater: as in `data`.
    """

    dataset: str
    root: Path
    split: str | dict | None = None
    part: Literal["train", "val", "test"] | None = None
    exclude: Names = ()
    fps: float | None = None
    operation_pattern: str | None = None
    labels: str | None = None
    organ: str | None = None
    rater: str | None = None

    def __post_init__(self) -> None:
        if self.fps is not None and self.fps <= 0:
            raise SurgdinoError("fps of data.also cannot be used", expected="more than 0", found=self.fps)
        if self.part is not None and self.split is None:
            raise SurgdinoError("part of data.also cannot be used", expected="split beside it", found=self.part)


@dataclass(frozen=True)
class DataSettings:
    """Key for key what configs/data.yaml explains."""

    root: Path
    split: str | dict | None = None
    part: Literal["train", "val", "test"] | None = None
    exclude: Names = ()
    operation_pattern: str | None = None
    labels: str | None = None
    organ: str | None = None
    rater: str | None = None
    fps: float = 1.0
    store: Path = Path("store")
    short_side: int = 256
    quality: int = 90
    decoder: Literal["pyav", "decord"] = "pyav"
    workers: int | Literal["auto"] = "auto"
    max_bad_share: float = 0.25
    also: tuple[AlsoSettings, ...] = ()

    def __post_init__(self) -> None:
        checks = (
            ("fps", self.fps > 0, "more than 0"),
            ("short_side", self.short_side >= 16, "at least 16 pixels"),
            ("quality", 1 <= self.quality <= 100, "1 to 100"),
            ("max_bad_share", 0 <= self.max_bad_share <= 1, "0 to 1"),
            ("part", self.part is None or self.split is not None, "data.split beside it"),
        )
        for key, holds, expected in checks:
            if not holds:
                raise SurgdinoError(f"data.{key} cannot be used", expected=expected, found=getattr(self, key))

    @classmethod
    def of(cls, cfg: Mapping[str, Any]) -> DataSettings:
        """The checked `data` section of a whole configuration."""
        return typed(cls, cfg["data"], "data")

    @property
    def options(self) -> dict[str, str | None]:
        """What goes to the dataset's adapter; each takes some of them and refuses the others."""
        return _options(self)

    @property
    def store_settings(self) -> StoreSettings:
        """What the stored frames depend on; a change of any of these rebuilds them."""
        return StoreSettings(fps=self.fps, short_side=self.short_side, quality=self.quality, decoder=self.decoder)

    @property
    def worker_count(self) -> int:
        """Processes that build the store; 0 lets the store choose."""
        return 0 if self.workers == "auto" else self.workers


def manifest_of(cfg: Mapping[str, Any], data: DataSettings) -> Manifest:
    """The videos that a configuration asks for: dataset, split, part, less what is excluded.

    Raises:
        SurgdinoError: no such folder or split, an exclusion that matches nothing, or nothing left.
    """
    manifest = part_of(open_whole(Card.from_dict(cfg["dataset"]), data), data)
    return not_empty(manifest.without(excluded_operations([manifest], data.exclude)))


def open_whole(card: Card, data: DataSettings | AlsoSettings) -> Manifest:
    """All videos of a dataset, each with its part of the split that was asked for."""
    return open_dataset(card, data.root, split=data.split, options=_options(data))


def part_of(manifest: Manifest, data: DataSettings | AlsoSettings) -> Manifest:
    """The part that was asked for, or everything where none was."""
    return manifest if data.part is None else manifest.part(data.part)


def not_empty(manifest: Manifest) -> Manifest:
    """The manifest, if a video is left in it.

    Raises:
        SurgdinoError: none is.
    """
    if not manifest.videos:
        raise SurgdinoError(
            "no videos to work on",
            file=manifest.root,
            expected=f"videos of dataset={manifest.dataset}",
            fix="check data.root, data.split and data.exclude",
        )
    return manifest


def excluded_operations(manifests: Sequence[Manifest], exclude: Sequence[str]) -> set[str]:
    """The operations that names as in `data.exclude` stand for, in any of these datasets.

    Raises:
        SurgdinoError: a name that is in none of them.
    """
    operations_of: dict[str, set[str]] = {}
    for video in (video for manifest in manifests for video in manifest.videos):
        # A video id names its whole operation: leaving out half of an operation would leak it through the other half.
        operations_of.setdefault(video.id, set()).add(video.operation)
        operations_of.setdefault(video.operation, set()).add(video.operation)
    operations: set[str] = set()
    for name in exclude:
        if name.startswith(_TEST_OF):
            # That none of them is here is as good as having left them out.
            operations |= operations_named(name.removeprefix(_TEST_OF))
        elif name in operations_of:
            operations |= operations_of[name]
        else:
            raise SurgdinoError(f"data.exclude names {name!r}, which is not there", fix=nearest(name, operations_of))
    return operations


def _options(data: DataSettings | AlsoSettings) -> dict[str, str | None]:
    keys = ("operation_pattern", "labels", "organ", "rater")
    return {key: getattr(data, key) for key in keys}


def core_count() -> int:
    """Cores this process may use, which on a shared machine are fewer than it has."""
    return len(os.sched_getaffinity(0))
