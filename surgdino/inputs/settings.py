"""The `data` section of the configuration, and the manifest that `data` asks for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from surgdino.config import (
    Fps,
    Location,
    Names,
    NonNegativeInt,
    PositiveInt,
    Share,
    Text,
    Workers,
    shipped,
    shipped_settings,
)
from surgdino.datasets.card import Card, Recordings
from surgdino.datasets.manifest import Manifest
from surgdino.datasets.open import folder_of, open_dataset
from surgdino.datasets.overlap import operations_named
from surgdino.errors import SurgdinoError, nearest
from surgdino.frames.engines import engine_named
from surgdino.frames.store import StoreSettings
from surgdino.runs.names import Mode, Pseudonyms

_TEST_OF = "test-of:"
_OPTIONS = ("operation_pattern", "labels", "organ", "rater", "masks")
Part = Literal["train", "val", "test"]


@dataclass(frozen=True)
class RunSettings:
    """The `run` section: the run folder (None lets the verb name it), and whether own operations get pseudonyms."""

    dir: Location | None
    names: Mode


@dataclass(frozen=True)
class ReportSettings:
    """The `report` section."""

    frames: bool


@dataclass(frozen=True)
class ProbeSettings:
    """The `probe` section; configs/probe.yaml explains its keys."""

    every: NonNegativeInt
    share: Share
    frames: Annotated[int, Field(ge=2, le=10**6)]
    both: bool
    part: Part | None
    hold_out: PositiveInt | tuple[NonNegativeInt | str, ...] | None
    dataset: Text | None
    root: Location | None
    split: Text | dict | None
    options: dict

    def __post_init__(self) -> None:
        if (self.dataset is None) != (self.root is None):
            expected = "probe.dataset and probe.root together"
            raise SurgdinoError("probe.root cannot be used", expected=expected, found=self.root)


@dataclass(frozen=True)
class AlsoSettings:
    """One entry of `data.also`: a further dataset to learn from; configs/also.yaml explains its keys."""

    dataset: Text
    root: Location
    split: Text | dict | None
    part: Part | None
    exclude: Names
    fps: Fps | None
    operation_pattern: Text | None
    labels: Text | None
    organ: Text | None
    rater: Text | None
    masks: Text | None
    recordings: Recordings | None

    def __post_init__(self) -> None:
        _require_split(self.part, self.split, "part of data.also")


def with_defaults(entry: Any) -> Any:
    """An entry of `data.also` with the keys that the user left out."""
    given = {key: value for key, value in shipped_settings("", "also").items() if value != "???"}
    return {**given, **entry} if isinstance(entry, Mapping) else entry


@dataclass(frozen=True)
class DataSettings:
    """The `data` section; configs/data.yaml explains its keys."""

    root: Location
    split: Text | tuple[Text, ...] | dict | None  # several: see inputs/folds.py
    part: Part | None
    exclude: Names
    operation_pattern: Text | None
    labels: Text | None
    organ: Text | None
    rater: Text | None
    masks: Text | None
    fps: Fps
    store: Location
    short_side: Annotated[int, Field(ge=16, le=8192)]
    quality: Annotated[int, Field(ge=1, le=100)]
    decoder: Literal["pyav", "decord"]
    content_crop: bool
    workers: Workers | Literal["auto"]
    engine: Text
    max_bad_share: Share
    curation: Location | None
    recordings: Recordings | None
    table: Location | None
    also: tuple[Annotated[AlsoSettings, BeforeValidator(with_defaults)], ...]

    def __post_init__(self) -> None:
        _require_split(self.part, self.split, "data.part")
        engine_named(self.engine)

    @classmethod
    def of(cls, cfg: Mapping[str, Any]) -> DataSettings:
        """The `data` section of a saved configuration; a key that an older version did not have takes its default."""
        return shipped(cls, "data", **cfg["data"])

    @property
    def options(self) -> dict[str, str | None]:
        """What goes to the dataset's adapter; each takes some of them and refuses the others."""
        return _options(self)

    @property
    def store_settings(self) -> StoreSettings:
        """What the stored frames depend on; a change of any of these rebuilds them."""
        return StoreSettings(**{field.name: getattr(self, field.name) for field in fields(StoreSettings)})

    @property
    def worker_count(self) -> int:
        """Processes that build the store; 0 lets the store choose."""
        return 0 if self.workers == "auto" else self.workers

    @property
    def selections(self) -> list[DataSettings | AlsoSettings]:
        """Itself, then the entries of `data.also`."""
        return [self, *self.also]


def _require_split(part: str | None, split: object, key: str) -> None:
    if part is not None and split is None:
        raise SurgdinoError(f"{key} cannot be used", expected="a split beside it", found=part)


def manifest_of(card: Card, data: DataSettings, names: Pseudonyms | None = None) -> Manifest:
    """The videos that the settings ask for: dataset, split, part, without what is excluded."""
    manifest = part_of(open_whole(card, data, names), data)
    return not_empty(manifest.without(excluded_operations([manifest], data.exclude)))


def open_whole(
    card: Card, data: DataSettings | AlsoSettings, names: Pseudonyms | None = None, prefix: str = ""
) -> Manifest:
    """All videos of a dataset, each with its part of the split that was asked for; `names` takes them in."""
    if isinstance(data.split, tuple):
        what, fix = "data.split names several splits", "give one of them; surgdino finetune takes several"
        raise SurgdinoError(what, expected="one split", found=", ".join(data.split) or "an empty list", fix=fix)
    manifest = _ahead.pop(_question(card, data), None)
    if manifest is None:
        manifest = open_dataset(card, data.root, split=data.split, options=_options(data))
    if names is not None:
        names.add(card, manifest, prefix)
    return manifest


_ahead: dict[str, Manifest] = {}  # opened, and not asked for yet


def open_ahead(card: Card, data: DataSettings) -> None:
    """Open the dataset of `data.root` and keep it for the next who asks for it: its faults are told before torch is
    imported, and it is read once."""
    if isinstance(data.split, tuple) or data.split == "cv" or (isinstance(data.split, dict) and "cv" in data.split):
        folder_of(card.name, data.root)  # several splits: see inputs/folds.py
        return
    manifest = open_whole(card, data)
    not_empty(part_of(manifest, data))
    if not data.also:
        excluded_operations([manifest], data.exclude)
    _ahead[_question(card, data)] = manifest


def _question(card: Card, data: DataSettings | AlsoSettings) -> str:
    return repr((card, data.root, data.split, _options(data)))


def require_split(card: Card, data: DataSettings) -> None:
    """Refuse what a task cannot be learned with: no split, or a part of one."""
    if data.part is not None:
        what = "data.part has no use here: a task needs all parts of a split"
        raise SurgdinoError(what, found=f"data.part={data.part}", fix="leave it out")
    if data.split is None:
        expected, fix = "a split such as {train: [1, 2], test: [3]}", "add data.split='{train: [...], test: [...]}'"
        if known := list(card.splits):
            expected, fix = f"one of {', '.join(known)}, or inline", f"add data.split={known[0]}"
        raise SurgdinoError("data.split is not set", expected=expected, fix=fix)


def part_of(manifest: Manifest, data: DataSettings | AlsoSettings) -> Manifest:
    """The part that was asked for, or everything where none was."""
    return manifest if data.part is None else manifest.part(data.part)


def not_empty(manifest: Manifest) -> Manifest:
    """The manifest; refused where no video is left in it."""
    if not manifest.videos:
        expected, fix = f"videos of dataset={manifest.dataset}", "check data.root, data.split and data.exclude"
        raise SurgdinoError("no videos to work on", file=manifest.root, expected=expected, fix=fix)
    return manifest


def operations_by_name(manifests: Iterable[Manifest]) -> dict[str, set[str]]:
    """All that a setting may call a video or an operation -> the operations.

    A video's id names its whole operation: half of one would leak through the other.
    """
    operations_of: dict[str, set[str]] = {}
    for manifest in manifests:
        for video in manifest.videos:
            for name in manifest.names_of(video):
                operations_of.setdefault(name, set()).add(video.operation)
    return operations_of


def excluded_operations(manifests: Sequence[Manifest], exclude: Sequence[str]) -> set[str]:
    """The operations that names as in `data.exclude` stand for, in any of these datasets; others are refused."""
    operations_of = operations_by_name(manifests)
    operations: set[str] = set()
    for name in exclude:
        if name.startswith(_TEST_OF):
            # It does not matter whether any of them is here.
            operations |= operations_named(name.removeprefix(_TEST_OF))
        elif name in operations_of:
            operations |= operations_of[name]
        else:
            raise SurgdinoError(f"data.exclude names {name!r}, which does not exist", fix=nearest(name, operations_of))
    return operations


def _options(data: DataSettings | AlsoSettings) -> dict[str, str | None]:
    return {key: getattr(data, key) for key in _OPTIONS}
