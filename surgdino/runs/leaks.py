"""The leak guard: has a checkpoint, or anything it was made from, seen the operations that it is to be tested on?

A checkpoint's model.json lists the operations it was trained on (`operations`), those its best state was chosen on
(`chosen_on`) and, for each training, their dataset (`seen`). An operation has one name in all datasets that contain it:
a backbone pretrained on Cholec80's video01 has seen VID01 of CholecT50.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rich.table import Table

from surgdino import console
from surgdino.datasets.manifest import Manifest, Video
from surgdino.errors import SurgdinoError
from surgdino.runs.names import Pseudonyms

Leakage = Literal["refuse", "allow"]
_SHOWN = 40  # rows of the table on the terminal


@dataclass(frozen=True)
class Seen:
    """Operations that one training has seen.

    Attributes:
        by: the verb, `pretrain` or `finetune`.
        how: `trained on`, or `chosen on` where they chose the checkpoint.
        dataset, split, part: where the operations are from; None where that is not known.
        operations: their names.
    """

    by: str
    how: str
    dataset: str | None
    split: str | None
    part: str | None
    operations: tuple[str, ...]

    @classmethod
    def of_videos(cls, by: str, how: str, dataset: str, split: Any, part: str | None, videos: Iterable[Video]) -> Seen:
        """The operations of videos; `split` is a name or an inline split."""
        name = split if split is None or isinstance(split, str) else "inline split"
        return cls(by, how, dataset, name, part, tuple(sorted({video.operation for video in videos})))

    @property
    def description(self) -> str:
        """`pretrain, trained on cholec80 40-40 train`."""
        where = " ".join(filter(None, (self.dataset, self.split, self.part))) or "unnamed data"
        return f"{self.by}, {self.how} {where}"

    def as_dict(self) -> dict[str, Any]:
        """For model.json."""
        return {**asdict(self), "operations": list(self.operations)}


@dataclass(frozen=True)
class Overlap:
    """A tested operation that was seen: its videos in the test part, and the trainings that saw it."""

    operation: str
    tested: tuple[str, ...]
    seen: tuple[Seen, ...]


@dataclass(frozen=True)
class LeakReport:
    """What the guard found; results with any overlap are stamped."""

    tested_on: str  # such as `cholect50 rdv test`
    tested: int  # operations
    overlaps: tuple[Overlap, ...]
    unknown: tuple[str, ...] = ()  # tested operations that may be among those that another house's names hide

    @property
    def stamp(self) -> str | None:
        """The sentence that is shown with every leaking result; None where nothing leaks."""
        if not self.overlaps:
            return None
        sources = dict.fromkeys(seen.description for overlap in self.overlaps for seen in overlap.seen)
        return (
            f"{len(self.overlaps)} of {self.tested} tested operations had been seen before ({'; '.join(sources)}); "
            "these are not results on unseen patients"
        )

    def as_dict(self) -> dict[str, Any]:
        """For results.json; also where nothing leaks, so that a reader sees that it was checked."""
        return {
            "tested_on": self.tested_on,
            "tested_operations": self.tested,
            "seen_operations": {o.operation: [seen.description for seen in o.seen] for o in self.overlaps},
            "stamp": self.stamp,
            **({"not_known_whether_seen": list(self.unknown)} if self.unknown else {}),
        }


def seen_of(info: Mapping[str, Any]) -> list[Seen]:
    """Everything that a checkpoint has seen, by its model.json; also operations of trainings that it does not name."""
    found = [Seen(**{**row, "operations": tuple(row["operations"])}) for row in info.get("seen", ())]
    if info and "seen" not in info:  # surgdino pretrain lists its datasets instead
        found = seen_of(info.get("initial_weights") or {})
        for row in info.get("datasets", ()):
            if row.get("operations"):
                found.append(Seen("pretrain", "trained on", row["name"], None, None, tuple(row["operations"])))
    for key, how in (("operations", "trained on"), ("chosen_on", "chosen on")):
        known = {operation for seen in found if seen.how == how for operation in seen.operations}
        if rest := tuple(sorted(set(info.get(key, ())) - known)):
            found.append(Seen("an earlier training", how, info.get("dataset"), None, None, rest))
    return found


def find_leaks(
    seen: Iterable[Seen],
    tested: Manifest,
    tested_on: str,
    names: Pseudonyms | None = None,
    past: Mapping[str, Any] | None = None,
) -> LeakReport:
    """Which of the manifest's operations were seen, and by which training: by name, pseudonym or content.

    Args:
        names: of the tested data.
        past: model.json, with what `Pseudonyms.past` wrote.
    """
    names, past = names or Pseudonyms(), past or {}
    seen, overlaps, contents = list(seen), [], names.contents(tested.operations if past.get("contents") else ())
    for operation in tested.operations:
        copies = {name for name, found in past.get("contents", {}).items() if {*found} & {*contents.get(operation, ())}}
        called = names.aliases(operation) | copies
        if by := tuple(each for each in seen if called.intersection(each.operations)):
            videos = tuple(video.id for video in tested.videos if video.operation == operation)
            overlaps.append(Overlap(operation, videos, by))
    unknown: set[str] = set()
    if {*past.get("names_keys", ())} - {names.key_id}:
        unknown = {each for each in tested.operations if names.is_own(each)} - {each.operation for each in overlaps}
    return LeakReport(tested_on, len(tested.operations), tuple(overlaps), tuple(sorted(unknown)))


def refuse_leaks(report: LeakReport, leakage: Leakage) -> None:
    """Print what was found; stop there unless `leakage` allows it."""
    if report.unknown:
        console.warn(
            f"whether the checkpoint has seen {len(report.unknown)} of {report.tested} tested operations is not known: "
            "it has pseudonyms that another key made, and only recordings with the same content are told again"
        )
    if not report.overlaps:
        return
    console.table(overlap_table(report))
    if leakage == "refuse":
        first = report.overlaps[0]
        raise SurgdinoError(
            "the checkpoint has seen operations that it would be tested on",
            place=report.tested_on,
            expected="operations that no training has seen",
            found=f"{len(report.overlaps)} of {report.tested} seen, such as {first.operation} "
            f"({first.seen[0].description})",
            fix="leave them out of pretraining (data.exclude=[test-of:DATASET/SPLIT]), choose another split, "
            "or use leakage=allow, which stamps the results",
        )
    console.say(f"leakage=allow: {report.stamp}", "bold red")


def overlap_table(report: LeakReport) -> Table:
    """For each tested operation that was seen: the trainings that saw it, and its videos in the test part."""
    title = f"tested operations that were seen before ({len(report.overlaps)} of {report.tested})"
    table = console.new_table(title, title_style="bold red")
    for head in ("operation", "seen by", "tested as"):
        table.add_column(head)
    for overlap in report.overlaps[:_SHOWN]:
        seen = "\n".join(dict.fromkeys(each.description for each in overlap.seen))
        table.add_row(overlap.operation, seen, f"{report.tested_on}: {', '.join(overlap.tested)}")
    if len(report.overlaps) > _SHOWN:
        table.add_row(f"and {len(report.overlaps) - _SHOWN} more", "", "")
    return table


def refuse_shared_parts(manifest: Manifest) -> None:
    """Refuse a split that trains or chooses checkpoints on operations that it tests; no setting allows this."""
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
