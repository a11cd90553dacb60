"""The `probe` section of the configuration: which operations the backbone is measured on, kept out of its training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from surgdino import distributed
from surgdino.backbone.preprocess import Preprocess
from surgdino.config import typed
from surgdino.datasets.card import Card, load_card
from surgdino.datasets.manifest import Labels, Manifest, Video
from surgdino.datasets.open import open_dataset
from surgdino.engine.measuring import Probing
from surgdino.engine.probing import ProbeSet
from surgdino.engine.probing.frames import even
from surgdino.errors import SurgdinoError, nearest
from surgdino.inputs.datasets import Source, joined_store, less, sources_of
from surgdino.inputs.settings import AlsoSettings, DataSettings, excluded_operations, open_whole


@dataclass(frozen=True)
class ProbeSettings:
    """Key for key what configs/probe.yaml explains."""

    every: int = 100
    frames: int = 512
    both: bool = False
    part: Literal["train", "val", "test"] | None = "val"
    hold_out: int | tuple[int | str, ...] | None = None
    dataset: str | None = None
    root: Path | None = None
    split: str | dict | None = None
    options: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        checks = (
            ("every", self.every >= 0, "0 or more steps"),
            ("frames", self.frames >= 2, "at least 2"),
            ("root", (self.dataset is None) == (self.root is None), "probe.dataset and probe.root together"),
            ("hold_out", not isinstance(self.hold_out, int) or self.hold_out > 0, "at least 1, or null"),
        )
        for key, holds, expected in checks:
            if not holds:
                raise SurgdinoError(f"probe.{key} cannot be used", expected=expected, found=getattr(self, key))


@dataclass(frozen=True)
class ProbeSource:
    """Where the probe's frames come from.

    Attributes:
        settings: as given.
        sources: the videos of the tested operations, and of those that only teach.
        tested: the operations that are measured on, and so choose the best checkpoint.
        held_out: whether they are kept out of training.
    """

    settings: ProbeSettings
    sources: tuple[Source, ...]
    tested: frozenset[str]
    held_out: bool

    def left_of(self, training: Sequence[Source]) -> list[Source]:
        """What is trained on, without the operations that are held out, whichever dataset they are filmed in.

        Raises:
            SurgdinoError: nothing is left of one of the datasets.
        """
        if not self.held_out:
            return list(training)
        for source in training:
            if self.tested.issuperset(source.manifest.operations):
                raise SurgdinoError(
                    f"the probe holds all of dataset={source.card.name} out of training",
                    place="probe",
                    found=f"{len(source.manifest.operations)} operations",
                    fix="hold fewer out: probe.hold_out=1, or a list of operations",
                )
        return less(training, self.tested)


def probe_source(cfg: Mapping[str, Any], data: DataSettings, training: Sequence[Source]) -> ProbeSource | None:
    """Which operations to measure on, and which may teach the probes that need labels; None where there is no probe.

    Tested are, in this order: what `probe.hold_out` says; the part `probe.part` of the split; all operations of
    `probe.dataset`; else those that are trained on. What `data.exclude` leaves out neither is tested nor teaches.

    Args:
        training: what would be trained on without a probe.

    Raises:
        SurgdinoError: an operation to hold out that is not there, or more than there are.
    """
    settings = typed(ProbeSettings, cfg["probe"], "probe")
    if not settings.every:
        return None
    known = _whole(cfg, data) if settings.dataset is None else _other(cfg, data, settings)
    candidates = training if settings.dataset is None else known
    videos = [video for source in known for video in source.manifest.videos]
    of_part = {video.operation for video in videos if settings.part is not None and video.split == settings.part}
    if settings.hold_out is not None:
        tested = _held_out(settings.hold_out, known, candidates)
    elif of_part or settings.dataset is not None:
        tested = of_part or _operations(known)
    else:
        return ProbeSource(settings, tuple(training), frozenset(_operations(training)), held_out=False)
    teaching = _operations(candidates)
    if settings.split is not None:
        teaching &= {video.operation for video in videos if video.split == "train"}
    return ProbeSource(settings, tuple(_only(known, tested | teaching)), frozenset(tested), held_out=True)


def open_probe(source: ProbeSource | None, data: DataSettings, preprocess: Preprocess) -> Probing | None:
    """The frames to measure on; those that are missing in the store are put there.

    Raises:
        SurgdinoError: none of the operations to measure on has a frame.
    """
    if source is None:
        return None
    store = joined_store(source.sources, data, progress=distributed.is_main())
    settings = source.settings
    frames = ProbeSet(store, settings.frames, preprocess, joined_labels(source.sources), source.tested)
    if not frames.operations:
        raise SurgdinoError(
            "no usable frame in any operation that the probe would measure on",
            file=source.sources[0].manifest.root,
            fix="run surgdino verify on this folder, or hold other operations out",
        )
    return Probing(frames, settings.every, settings.both)


def joined_labels(sources: Sequence[Source]) -> dict[str, Labels]:
    """The labels of all sources under the joined store's video ids.

    A task that two datasets label with different classes keeps those of the first.
    """
    joined: dict[str, Labels] = {}
    for source in sources:
        for task, labels in source.manifest.labels.items():
            before = joined.get(task, replace(labels, values={}))
            if before.classes == labels.classes:
                values = {source.prefix + video: value for video, value in labels.values.items()}
                joined[task] = replace(before, values={**before.values, **values})
    return joined


def _whole(cfg: Mapping[str, Any], data: DataSettings) -> list[Source]:
    """What is trained on together with the other parts of its splits."""
    also = tuple(replace(entry, part=None) for entry in data.also)
    return sources_of(cfg, replace(data, part=None, also=also))


def _other(cfg: Mapping[str, Any], data: DataSettings, settings: ProbeSettings) -> list[Source]:
    """The dataset `probe.dataset`, without what the training data exclude."""
    assert settings.dataset is not None
    assert settings.root is not None
    card = load_card(settings.dataset)
    manifest = open_dataset(card, settings.root, split=settings.split, options=settings.options)
    if data.exclude or any(entry.exclude for entry in data.also):
        manifest = manifest.without(_left_out(cfg, data, manifest))
    return [Source(card, manifest, frozenset(), "", data.store, data.store_settings)]


def _left_out(cfg: Mapping[str, Any], data: DataSettings, probed: Manifest) -> set[str]:
    cards = [Card.from_dict(cfg["dataset"]), *(load_card(entry.dataset) for entry in data.also)]
    asked: list[DataSettings | AlsoSettings] = [data, *data.also]
    trained = [open_whole(card, entry) for card, entry in zip(cards, asked, strict=True)]
    names = [name for entry in asked for name in entry.exclude]
    return excluded_operations([*trained, probed], names)


def _held_out(hold_out: int | tuple[int | str, ...], known: Sequence[Source], candidates: Sequence[Source]) -> set[str]:
    if isinstance(hold_out, int):
        operations = sorted(_operations(candidates))
        if hold_out > len(operations):
            raise SurgdinoError(
                "fewer operations than the probe shall hold out",
                place="probe.hold_out",
                expected=f"at most {len(operations)}",
                found=hold_out,
            )
        return set(even(np.array(operations), hold_out).tolist())
    videos = [video for source in known for video in source.manifest.videos]
    names = {name: video.operation for video in videos for name in _names(video)}
    for name in hold_out:
        if str(name) not in names:
            raise SurgdinoError(
                f"probe.hold_out names {name!r}, which is not there, or which data.exclude leaves out",
                fix=nearest(str(name), names),
            )
    return {names[str(name)] for name in hold_out}


def _names(video: Video) -> tuple[str, ...]:
    return video.id, video.operation, video.operation.partition("/")[2]


def _operations(sources: Sequence[Source]) -> set[str]:
    return {operation for source in sources for operation in source.manifest.operations}


def _only(sources: Sequence[Source], operations: set[str]) -> list[Source]:
    """The sources with these operations alone; those of which nothing is left are dropped."""
    kept = (replace(s, manifest=s.manifest.without(set(s.manifest.operations) - operations)) for s in sources)
    return [source for source in kept if source.manifest.videos]
