"""The leak guard: has anything that led to this checkpoint seen what it shall be tested on?

A checkpoint's model.json lists what it was trained on (`operations`), what its best state was chosen on (`chosen_on`),
and, training by training, where that was (`seen`). Operations have one name in all datasets that film them, so a
backbone pretrained on Cholec80's video01 is known to have seen VID01 of CholecT50.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table

from surgdino.datasets.manifest import Manifest, Video
from surgdino.errors import SurgdinoError

Leakage = Literal["refuse", "allow"]
_SHOWN = 40  # rows of the table on the terminal


@dataclass(frozen=True)
class Seen:
    """One look that a training took at some operations.

    Attributes:
        by: the verb, `pretrain` or `finetune`.
        how: `trained on`, or `chosen on` where they chose among its states.
        dataset, split, part: where the operations were; None where that is not known.
        operations: their names.
    """

    by: str
    how: str
    dataset: str | None
    split: str | None
    part: str | None
    operations: tuple[str, ...]

    @property
    def place(self) -> str:
        """`cholec80 40-40 train`."""
        return " ".join(filter(None, (self.dataset, self.split, self.part))) or "data that it does not name"

    @property
    def words(self) -> str:
        """`pretrain, trained on cholec80 40-40 train`."""
        return f"{self.by}, {self.how} {self.place}"

    def as_dict(self) -> dict[str, Any]:
        """For model.json."""
        return {**asdict(self), "operations": list(self.operations)}


@dataclass(frozen=True)
class Overlap:
    """An operation that is tested although it was seen: its videos in the test part, and who saw it."""

    operation: str
    tested: tuple[str, ...]
    seen: tuple[Seen, ...]


@dataclass(frozen=True)
class LeakReport:
    """What the guard found.

    Attributes:
        tested_on: such as `cholect50 rdv test`.
        tested: number of operations in it.
        overlaps: those of them that were seen; results with any are stamped.
    """

    tested_on: str
    tested: int
    overlaps: tuple[Overlap, ...]

    @property
    def stamp(self) -> str | None:
        """The sentence that goes with every figure of a leaking result; None for a clean one."""
        if not self.overlaps:
            return None
        sources = dict.fromkeys(seen.words for overlap in self.overlaps for seen in overlap.seen)
        return (
            f"{len(self.overlaps)} of {self.tested} tested operations had been seen before ({'; '.join(sources)}); "
            "these are not figures on unseen patients"
        )

    def as_dict(self) -> dict[str, Any]:
        """For results.json, of clean results too: a reader shall see that it was looked for."""
        return {
            "tested_on": self.tested_on,
            "tested_operations": self.tested,
            "seen_operations": {o.operation: [seen.words for seen in o.seen] for o in self.overlaps},
            "stamp": self.stamp,
        }


def seen_of(info: Mapping[str, Any]) -> list[Seen]:
    """What a checkpoint says that it has seen; operations whose training it does not tell are among them.

    Args:
        info: of model.json, or of what is known of initial weights.
    """
    told = [Seen(**{**row, "operations": tuple(row["operations"])}) for row in info.get("seen", ())]
    if info and "seen" not in info:
        earlier = info.get("initial_weights")
        told = [*(seen_of(earlier) if earlier else ()), *_pretraining(info)]
    for key, how in (("operations", "trained on"), ("chosen_on", "chosen on")):
        known = {operation for seen in told if seen.how == how for operation in seen.operations}
        rest = tuple(sorted(set(info.get(key, ())) - known))
        if rest:
            told.append(Seen("an earlier training", how, info.get("dataset"), None, None, rest))
    return told


def _pretraining(info: Mapping[str, Any]) -> list[Seen]:
    """What `surgdino pretrain` wrote down of its datasets."""
    datasets = info.get("datasets", ())
    return [
        Seen("pretrain", "trained on", row["name"], None, None, tuple(row["operations"]))
        for row in datasets
        if row.get("operations")
    ]


def look(by: str, how: str, dataset: str, split: Any, part: str | None, videos: Iterable[Video]) -> Seen:
    """What a training that is under way sees of a manifest."""
    name = split if split is None or isinstance(split, str) else "inline split"
    return Seen(by, how, dataset, name, part, tuple(sorted({video.operation for video in videos})))


def find_leaks(seen: Iterable[Seen], tested: Manifest, tested_on: str) -> LeakReport:
    """Which of the manifest's operations were seen, and by whom."""
    seen = list(seen)
    overlaps = []
    for operation in tested.operations:
        by = tuple(each for each in seen if operation in each.operations)
        if by:
            videos = tuple(video.id for video in tested.videos if video.operation == operation)
            overlaps.append(Overlap(operation, videos, by))
    return LeakReport(tested_on, len(tested.operations), tuple(overlaps))


def guard(report: LeakReport, leakage: Leakage, console: Console) -> LeakReport:
    """Print what was found, and refuse to go on with it unless that was asked for by name.

    Raises:
        SurgdinoError: tested operations had been seen.
    """
    if not report.overlaps:
        return report
    console.print(overlap_table(report))
    if leakage == "refuse":
        first = report.overlaps[0]
        raise SurgdinoError(
            "the checkpoint has seen operations that it would be tested on",
            place=report.tested_on,
            expected="operations that no training has seen",
            found=f"{len(report.overlaps)} of {report.tested} seen, such as {first.operation} ({first.seen[0].words})",
            fix="leave them out of pretraining (data.exclude=[test-of:DATASET/SPLIT]), choose another split, "
            "or use leakage=allow, which stamps the results",
        )
    console.print(f"[bold red]leakage=allow[/bold red]: {report.stamp}", soft_wrap=True, highlight=False)
    return report


def overlap_table(report: LeakReport) -> Table:
    """Operation, where it was seen, as what it is tested."""
    title = f"tested operations that were seen before ({len(report.overlaps)} of {report.tested})"
    table = Table(title=title, title_justify="left", title_style="bold red", box=box.SIMPLE, pad_edge=False)
    for head in ("operation", "seen by", "tested as"):
        table.add_column(head)
    for overlap in report.overlaps[:_SHOWN]:
        seen = "\n".join(dict.fromkeys(each.words for each in overlap.seen))
        table.add_row(overlap.operation, seen, f"{report.tested_on}: {', '.join(overlap.tested)}")
    if len(report.overlaps) > _SHOWN:
        table.add_row(f"and {len(report.overlaps) - _SHOWN} more", "", "")
    return table


def refuse_shared_parts(manifest: Manifest) -> None:
    """Refuse a split that trains or chooses on operations that it tests; no setting allows this.

    Raises:
        SurgdinoError: an operation is in two parts.
    """
    part_of: dict[str, str | None] = {}
    for video in manifest.videos:
        before = part_of.setdefault(video.operation, video.split)
        if before != video.split:
            raise SurgdinoError(
                f"the operation {video.operation} is in two parts of the split",
                place="data.split",
                found=f"{before} and {video.split}",
                fix="put all videos of an operation into one part",
            )
