"""A dataset of a benchmark, opened: its frames, what is tested, and what each backbone has seen of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from surgdino.console import say, warn
from surgdino.datasets.manifest import Manifest
from surgdino.errors import SurgdinoError, first_of
from surgdino.evaluations.parts.given import Given
from surgdino.frames.store import FrameStore
from surgdino.inputs.backbones import NamedBackbone
from surgdino.inputs.facts import columns_of_card, columns_of_table, named_videos
from surgdino.inputs.labelled import open_store_of, split_name, unheld
from surgdino.inputs.settings import manifest_of
from surgdino.inputs.suite import SuiteDataset
from surgdino.runs.history import History
from surgdino.runs.leaks import Leakage, LeakReport, find_leaks, refuse_shared, refuse_shared_parts
from surgdino.runs.names import Pseudonyms
from surgdino.tasks.features.cache import FeatureCache
from surgdino.tasks.labelled_frames import LabelledFrames, every_frame, labelled_frames
from surgdino.wording import counted

_SHOWN = 4


@dataclass(frozen=True)
class TestedDataset:
    """A dataset with its frames.

    Attributes:
        manifest, store: of all operations that are tested or learnt from.
        tested, learns: operations. Without a split they are the same ones; those that a backbone has seen are learnt
            from alone.
        leaks: backbone -> what it has seen of the tested operations.
        names: of the operations.
        columns: see `Given`.
    """

    dataset: SuiteDataset
    manifest: Manifest
    store: FrameStore
    tested: frozenset[str]
    learns: frozenset[str]
    leaks: Mapping[str, LeakReport]
    names: Pseudonyms
    columns: Mapping[str, Mapping[str, str]]

    def kinds(self) -> tuple[str, ...]:
        """The kinds of labels that some of its frames have."""
        return tuple(kind for kind, labels in self.manifest.labels.items() if labels.values)

    def frames(self, kind: str | None) -> LabelledFrames:
        """Those with labels of a kind; all of them for None.

        Raises:
            SurgdinoError: there are none, or labels that do not fit their videos.
        """
        if kind is None:
            found = every_frame(self.store)
        else:
            for problem in unheld(self.manifest, self.store.select(flagged=True), self.manifest.labels[kind]):
                if problem.severity == "error":
                    raise problem.error()
            found = labelled_frames(self.manifest, self.store, kind)
        if not len(found):
            what, file = f"no frame of {self.dataset.name} has a label of kind {kind!r}", self.manifest.root
            raise SurgdinoError(what, file=file, fix="run surgdino verify, and check data.fps")
        return self.names.frames(found)

    def given(self, frames: LabelledFrames, features: FeatureCache, first: FeatureCache) -> Given:
        """What an evaluation is given."""
        of_video = [frames.operations[video] for video in frames.videos]
        tested, learns = (
            np.array([operation in chosen for operation in of_video], bool)[frames.video_of]
            for chosen in (self.tested, self.learns)
        )
        return Given(frames, tested, learns, features, first, self.columns)


def open_tested(
    dataset: SuiteDataset, backbones: Sequence[NamedBackbone], leakage: Leakage, names: Pseudonyms
) -> TestedDataset:
    """Open a dataset; what its store lacks is built.

    With a split its test part is tested, and operations in it that a backbone has seen are refused. Without one every
    operation is tested that no backbone has seen; with `leakage=allow` all of them are.

    Raises:
        SurgdinoError: whatever keeps it from being used.
    """
    data = dataset.data
    manifest = manifest_of(dataset.card, data, names)
    if manifest.errors:  # a fault that would make the numbers wrong
        raise manifest.errors[0].error()
    where = [dataset.name, *([split_name(data, names), "test"] if data.split else [])]
    if data.split is not None:
        manifest = replace(
            manifest, videos=tuple(video for video in manifest.videos if video.split in ("train", "test"))
        )
        refuse_shared_parts(manifest)
        for part in ("train", "test"):
            if not manifest.part(part).videos:
                what, expected = f"no operation of the split's {part} part is here", "operations of both parts"
                raise SurgdinoError(
                    what, file=manifest.root, expected=expected, fix=f"leave data.{dataset.name}.split out"
                )
    store = open_store_of(manifest, data)
    for video, reason in store.set_aside.items():
        warn(f"set aside {video}: {reason}")
    tested = manifest if data.split is None else manifest.part("test")
    prints = store.prints_of(tested.operations)
    pasts = {each.name: History.of(each.start.info) for each in backbones}
    leaks = {name: find_leaks(past, tested, " ".join(where), names, prints) for name, past in pasts.items()}
    if data.split is None and leakage == "refuse":
        seen = {overlap.operation for report in leaks.values() for overlap in report.overlaps}
        if seen and {*tested.operations} - seen:
            shown = first_of(sorted(map(names.named, seen)), _SHOWN)
            one = "operation that a backbone has seen is not tested"
            several = "operations that a backbone has seen are not tested"
            say(f"{dataset.name}: {counted(len(seen), one, several)}: {shown}")
            tested = tested.without(seen)
            leaks = {name: find_leaks(past, tested, " ".join(where), names, prints) for name, past in pasts.items()}
    for report in leaks.values():
        refuse_shared(report, leakage)
    learns = manifest if data.split is None else manifest.part("train")
    operations = frozenset(tested.operations), frozenset(learns.operations)
    columns = _columns(dataset, manifest)
    return TestedDataset(dataset, manifest, store, *operations, leaks, names, columns)


def _columns(dataset: SuiteDataset, manifest: Manifest) -> dict[str, dict[str, str]]:
    """Column -> operation -> its value: by the dataset's table, or by its card where there is none."""
    table, named = dataset.data.table, named_videos([("", manifest)])
    told = columns_of_table(table, named, required=False) if table else columns_of_card(dataset.card, manifest)
    if table and not any(told.values()):
        warn(f"{table} says nothing of {dataset.name}")
    operations, found = {video.id: video.operation for video in manifest.videos}, dict[str, dict[str, str]]()
    for column, values in told.items():
        of_column = found[column] = {}
        for name, value in values.items():
            if value and of_column.setdefault(operations[name], value) != value:
                what = f"the table says different things of videos of one operation, {operations[name]}"
                raise SurgdinoError(what, file=table, place=column, found=f"{of_column[operations[name]]} and {value}")
    return {column: values for column, values in found.items() if values}
