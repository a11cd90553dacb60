"""The `data` section of the configuration, and the manifest that it asks for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from surgdino.config import typed
from surgdino.datasets.card import Card
from surgdino.datasets.manifest import Manifest
from surgdino.datasets.open import open_dataset
from surgdino.datasets.overlap import operations_named
from surgdino.errors import SurgdinoError, nearest
from surgdino.frames.store import StoreSettings

_TEST_OF = "test-of:"


@dataclass(frozen=True)
class DataSettings:
    """Key for key what configs/data.yaml explains."""

    root: Path
    split: str | dict | None = None
    part: Literal["train", "val", "test"] | None = None
    exclude: tuple[str, ...] = ()
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
        keys = ("operation_pattern", "labels", "organ", "rater")
        return {key: getattr(self, key) for key in keys}

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
    manifest = open_dataset(Card.from_dict(cfg["dataset"]), data.root, split=data.split, options=data.options)
    if data.part is not None:
        manifest = manifest.part(data.part)
    manifest = manifest.without(_excluded_operations(manifest, data.exclude))
    if not manifest.videos:
        raise SurgdinoError(
            "no videos to work on",
            file=data.root,
            expected=f"videos of dataset={manifest.dataset}",
            fix="check data.root, data.split and data.exclude",
        )
    return manifest


def _excluded_operations(manifest: Manifest, exclude: tuple[str, ...]) -> set[str]:
    # A video id names its whole operation: leaving out half of an operation would leak it through the other half.
    operation_of = {v.id: v.operation for v in manifest.videos} | {v.operation: v.operation for v in manifest.videos}
    operations: set[str] = set()
    for name in exclude:
        if name.startswith(_TEST_OF):
            # That none of them is here is as good as having left them out.
            operations |= operations_named(name.removeprefix(_TEST_OF))
        elif name in operation_of:
            operations.add(operation_of[name])
        else:
            raise SurgdinoError(f"data.exclude names {name!r}, which is not there", fix=nearest(name, operation_of))
    return operations


def core_count() -> int:
    """Cores this process may use, which on a shared machine are fewer than it has."""
    return len(os.sched_getaffinity(0))
