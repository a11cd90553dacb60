"""The `probe` section: which operations the backbone is measured on; they are kept out of its training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from surgdino import distributed
from surgdino.backbone.preprocess import Preprocess
from surgdino.console import warn
from surgdino.datasets.card import Card, load_card
from surgdino.datasets.manifest import Labels
from surgdino.datasets.open import open_dataset
from surgdino.engine.probing import ProbeSet
from surgdino.engine.probing.frames import even
from surgdino.engine.probing.probe_set import Probing
from surgdino.errors import SurgdinoError, nearest
from surgdino.frames.prints import Prints
from surgdino.inputs.datasets import RunDataset, joined_store, open_datasets, without
from surgdino.inputs.labelled import unheld
from surgdino.inputs.settings import DataSettings, ProbeSettings, excluded_operations, open_whole, operations_by_name
from surgdino.runs.history import History
from surgdino.runs.leaks import LeakReport, find_leaks
from surgdino.runs.names import Pseudonyms


@dataclass(frozen=True)
class ProbeData:
    """Where the probe's frames come from.

    Attributes:
        settings: the `probe` section.
        datasets: the videos of the tested operations, and of those that only the labelled probes learn from.
        tested: the operations that are measured on, and so choose the best checkpoint.
        held_out: whether they are kept out of training.
    """

    settings: ProbeSettings
    datasets: tuple[RunDataset, ...]
    tested: frozenset[str]
    held_out: bool

    def left_of(self, training: Sequence[RunDataset]) -> list[RunDataset]:
        """What is trained on, without the operations that are held out, whichever dataset they are in."""
        if not self.held_out:
            return list(training)
        for each in training:
            if self.tested.issuperset(each.manifest.operations):
                what = f"the probe holds all of dataset={each.card.name} out of training"
                fix = "hold fewer out: probe.hold_out=1, or a list of operations"
                found = f"{len(each.manifest.operations)} operations"
                raise SurgdinoError(what, place="probe", found=found, fix=fix)
        return without(training, self.tested)


def choose_probe(
    settings: ProbeSettings,
    card: Card,
    data: DataSettings,
    training: Sequence[RunDataset],
    names: Pseudonyms | None = None,
) -> ProbeData | None:
    """Which operations to measure on, and which the labelled probes may learn from; None where there is no probe.

    Tested are, in this order: what `probe.hold_out` says; the part `probe.part` of the split; all operations of
    `probe.dataset`; else those that are trained on. What `data.exclude` leaves out is not used at all.

    Args:
        card: of the dataset of `data.root`.
        training: what would be trained on without a probe.
        names: takes in those of `probe.dataset`.

    Raises:
        SurgdinoError: operations to hold out, and never a measurement: they would be trained on unnoticed.
    """
    if not settings.every:
        if settings.hold_out is not None:
            fix = "use data.exclude to leave them out without measuring, or probe.every=100"
            what = "probe.every=0 holds nothing out"
            raise SurgdinoError(what, place="probe.hold_out", found=settings.hold_out, fix=fix)
        return None
    if settings.dataset is None:  # what is trained on together with the other parts of its splits
        also = tuple(replace(entry, part=None) for entry in data.also)
        known = open_datasets(card, replace(data, part=None, also=also))
        candidates = training
    else:
        known = candidates = [_other_dataset(settings.dataset, settings, card, data, names)]
    videos = [video for each in known for video in each.manifest.videos]
    of_part = {video.operation for video in videos if settings.part is not None and video.split == settings.part}
    if settings.hold_out is not None:
        tested = _held_out(settings.hold_out, known, candidates)
    elif of_part or settings.dataset is not None:
        tested = of_part or _operations(known)
    else:
        return ProbeData(settings, tuple(training), frozenset(_operations(training)), held_out=False)
    learned = _operations(candidates)
    if settings.split is not None:
        learned &= {video.operation for video in videos if video.split == "train"}
    used = tested | learned
    kept = (replace(each, manifest=each.manifest.without(set(each.manifest.operations) - used)) for each in known)
    datasets = tuple(each for each in kept if each.manifest.videos)
    return ProbeData(settings, datasets, frozenset(tested), held_out=True)


def open_probe(chosen: ProbeData | None, data: DataSettings, preprocess: Preprocess) -> Probing | None:
    """The frames to measure on; those that the store lacks are added to it."""
    if chosen is None:
        return None
    store = joined_store(chosen.datasets, data, progress=distributed.is_main())
    settings, root = chosen.settings, chosen.datasets[0].manifest.root
    labels = joined_labels(chosen.datasets)
    for each in chosen.datasets:
        manifest = replace(each.manifest, videos=tuple(replace(v, id=each.prefix + v.id) for v in each.manifest.videos))
        for problem in (problem for of_task in labels.values() for problem in unheld(manifest, store, of_task)[:1]):
            warn(problem.error().line())  # training itself needs no labels
    frames = ProbeSet(store, settings.frames, preprocess, labels, chosen.tested)
    if not frames.operations:
        what = "no usable frame in any operation that the probe would measure on"
        raise SurgdinoError(what, file=root, fix="run surgdino verify on this folder, or hold other operations out")
    return Probing(frames, settings.every, settings.both, settings.share)


def probe_leaks(
    chosen: ProbeData, prints: Mapping[str, Sequence[Prints]], past: History, names: Pseudonyms
) -> LeakReport:
    """Which of the operations that are measured on some weights have seen, by name or by their frames' prints."""
    tested = [each.manifest.without({*each.manifest.operations} - chosen.tested) for each in chosen.datasets]
    whole = replace(tested[0], videos=tuple(video for each in tested for video in each.videos))
    return find_leaks(past, whole, "the probe", names, prints)


def refuse_trained(report: LeakReport) -> None:
    """Refuse a probe that measures on what the same run trains on under another name."""
    if report.overlaps:
        first = report.overlaps[0]
        raise SurgdinoError(
            "the probe would measure on operations that are trained on under other names",
            place="probe",
            expected="operations that are kept out of training",
            found=f"{len(report.overlaps)} of {report.tested}, such as {first.operation}{first.how}",
            fix="keep one copy of each operation, or hold other operations out",
        )


def joined_labels(datasets: Sequence[RunDataset]) -> dict[str, Labels]:
    """The labels of all datasets under the joined store's video ids.

    A task that two datasets label with different classes keeps those of the first; the same classes meet by name.
    """
    joined: dict[str, Labels] = {}
    for each in datasets:
        for task, labels in each.manifest.labels.items():
            before = joined.get(task, replace(labels, values={}))
            if found := labels.in_classes(before.classes):
                values = {each.prefix + video: value for video, value in found.values.items()}
                joined[task] = replace(before, values={**before.values, **values})
    return joined


def _other_dataset(
    name: str, settings: ProbeSettings, card: Card, data: DataSettings, names: Pseudonyms | None
) -> RunDataset:
    """The dataset `probe.dataset`, without what the training data exclude."""
    assert settings.root is not None
    other = load_card(name)
    manifest = open_dataset(other, settings.root, split=settings.split, options=settings.options)
    if names is not None:
        names.add(other, manifest)
    excluded = [name for entry in data.selections for name in entry.exclude]
    if excluded:
        cards = [card, *(load_card(entry.dataset) for entry in data.also)]
        trained = [open_whole(card, entry) for card, entry in zip(cards, data.selections, strict=True)]
        manifest = manifest.without(excluded_operations([*trained, manifest], excluded))
    return RunDataset(other, manifest, frozenset(), "", data.store, data.store_settings)


def _held_out(
    hold_out: int | tuple[int | str, ...], known: Sequence[RunDataset], candidates: Sequence[RunDataset]
) -> set[str]:
    if isinstance(hold_out, int):
        operations = sorted(_operations(candidates))
        if hold_out > len(operations):
            what = "probe.hold_out is larger than the number of operations"
            raise SurgdinoError(what, expected=f"at most {len(operations)}", found=hold_out)
        return set(even(np.array(operations), hold_out).tolist())
    names = operations_by_name(each.manifest for each in known)
    for wanted in map(str, hold_out):
        if wanted not in names:
            what = f"probe.hold_out names {wanted!r}, which does not exist, or which data.exclude leaves out"
            raise SurgdinoError(what, fix=nearest(wanted, names))
    return set().union(*(names[str(wanted)] for wanted in hold_out))


def _operations(datasets: Sequence[RunDataset]) -> set[str]:
    return {operation for each in datasets for operation in each.manifest.operations}
