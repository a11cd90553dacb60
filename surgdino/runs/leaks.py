"""The leak guard: has a checkpoint, or anything it was made from, seen the operations that it is to be tested on?

An operation has one name in all datasets that contain it: a backbone pretrained on Cholec80's video01 has seen VID01 of
CholecT50. Under another name (a copy, a renamed folder, exported frames) it is told by the prints of its frames. The
answer is one of three: disjoint, shared, or unknown where weights came from elsewhere or nothing but names can tell.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rich.table import Table

from surgdino import console
from surgdino.datasets.manifest import Manifest
from surgdino.datasets.overlap import exclude_word, told_by_names
from surgdino.errors import SurgdinoError, first_of
from surgdino.frames.prints import Prints, recognise
from surgdino.runs.history import History, Seen
from surgdino.runs.names import Pseudonyms

Leakage = Literal["refuse", "allow"]
State = Literal["disjoint", "shared", "unknown"]
UNKNOWN_STAMP = "Whether the tested operations had been seen before is not known"
_SHOWN, _NAMED = 40, 5  # rows of the table on the terminal; operations in a sentence


@dataclass(frozen=True)
class Overlap:
    """A tested operation that was seen.

    Attributes:
        operation: as the tested data call it.
        tested: its videos in the test part.
        seen: the trainings that saw it.
        copies: what it was called in training, where its frames told it; empty where its name did.
        share: of its frames that are in them, roughly.
    """

    operation: str
    tested: tuple[str, ...]
    seen: tuple[Seen, ...]
    copies: tuple[str, ...] = ()
    share: float = 0.0

    @property
    def how(self) -> str:
        """How it was told, where not by its name."""
        if not self.copies:
            return ""
        return f", told by its frames: about {self.share:.0%} are those of {first_of(self.copies, 2)}"


@dataclass(frozen=True)
class LeakReport:
    """What the guard found; results are stamped unless the tested operations are known to be new.

    Attributes:
        tested_on: such as `cholect50 rdv test`.
        tested: how many operations.
        overlaps: those that were seen.
        unknown: what stands in the way of saying that no other was.
        apart: sentences on trainings whose frames were kept apart from tested ones by their features.
    """

    tested_on: str
    tested: int
    overlaps: tuple[Overlap, ...]
    unknown: tuple[str, ...] = ()
    apart: tuple[str, ...] = ()

    @property
    def state(self) -> State:
        """Whether the tested operations are apart from those that were seen."""
        return "shared" if self.overlaps else "unknown" if self.unknown else "disjoint"

    @property
    def stamp(self) -> str | None:
        """The sentence that is shown with every result that is not known to be on new operations."""
        if self.state == "disjoint":
            return None
        if self.state == "unknown":
            return f"{UNKNOWN_STAMP}: {'; '.join(self.unknown)}"
        sources = dict.fromkeys(f"{seen.description}{each.how}" for each in self.overlaps for seen in each.seen)
        return (
            f"{len(self.overlaps)} of {self.tested} tested operations had been seen before ({'; '.join(sources)}); "
            "these are not results on unseen patients"
        )

    def as_dict(self, names: Pseudonyms | None = None) -> dict[str, Any]:
        """For results.json; also where nothing leaks, so that a reader sees that it was checked.

        Args:
            names: what the sentences may call operations.
        """
        shown = (names or Pseudonyms()).sentence
        return {
            "state": self.state,
            "tested_on": self.tested_on,
            "tested_operations": self.tested,
            "seen_operations": {
                each.operation: [shown(f"{seen.description}{each.how}") for seen in each.seen] for each in self.overlaps
            },
            "unknown": list(self.unknown),
            "apart": [shown(sentence) for sentence in self.apart],
            "stamp": shown(self.stamp) if self.stamp else None,
        }


def find_leaks(
    past: History,
    tested: Manifest,
    tested_on: str,
    names: Pseudonyms | None = None,
    prints: Mapping[str, Sequence[Prints]] | None = None,
) -> LeakReport:
    """Which of the manifest's operations were seen, and by which training: by name, pseudonym or content.

    Args:
        names: of the tested data.
        prints: of the tested operations; None before the frame store is there, when only names can tell.
    """
    names, overlaps = names or Pseudonyms(), []
    for operation in tested.operations:
        called, known = names.aliases(operation), (prints or {}).get(operation)
        copies = recognise(past.prints, known) if known else {}
        if by := tuple(each for each in past.seen if (called | copies.keys()).intersection(each.operations)):
            videos = tuple(video.id for video in tested.videos if video.operation == operation)
            found = (
                () if called.intersection(name for each in by for name in each.operations) else tuple(sorted(copies))
            )
            overlaps.append(Overlap(operation, videos, by, found, min(1.0, sum(copies.values()))))
    unknown = list(past.unknown)
    new = {*tested.operations} - {each.operation for each in overlaps}
    if prints is not None and (count := _not_told(past, new)):
        unknown.append(f"{count} operations that it was trained on can only be told by their names")
    apart = kept_apart(past, tested, names)
    return LeakReport(tested_on, len(tested.operations), tuple(overlaps), tuple(unknown), apart)


def kept_apart(past: History, tested: Manifest, names: Pseudonyms) -> tuple[str, ...]:
    """A sentence on each curation that kept a training's frames apart from tested operations, and how far that goes."""
    sentences = []
    for apart in dict.fromkeys(seen.apart for seen in past.seen if seen.apart):
        covered = sum(bool(names.aliases(each) & {*apart.operations}) for each in tested.operations)
        if not covered:
            continue
        by, others = (
            list(dict.fromkeys(seen.description for seen in past.seen if (seen.apart == apart) is own))
            for own in (True, False)
        )
        of = "the" if covered == len(tested.operations) else f"{covered} of the {len(tested.operations)}"
        sentence = (
            f"{'; '.join(by)}: disjoint by content from {of} tested operations, checked against {apart.frames:,} "
            f"frames of {apart.of} at cosine {apart.cosine:.3f} of {apart.backbone}; the nearest frame that stayed has "
            f"{apart.nearest:.3f}"
        )
        if apart.left_out:
            shares = [f"{share:.0%} of {name}" for name, share in sorted(apart.left_out, key=lambda each: -each[1])]
            sentence += f"; left out for it: {first_of(shares, _NAMED)}"
        sentences.append(sentence + (f"; not checked so: {'; '.join(others)}" if others else ""))
    return tuple(sentences)


def _not_told(past: History, tested: Collection[str]) -> int:
    """How many seen operations have no prints, and names that do not tell whether they are among the tested ones."""
    unprinted = {each for row in past.seen for each in row.operations} - past.prints.keys()
    return sum(not all(told_by_names(seen, each) for each in tested) for seen in unprinted)


def refuse_named(past: History, tested: Manifest, tested_on: str, names: Pseudonyms, leakage: Leakage) -> None:
    """What names tell is refused before any frame is decoded."""
    refuse_shared(find_leaks(past, tested, tested_on, names), leakage)


def refuse_shared(report: LeakReport, leakage: Leakage) -> None:
    """Stop where operations were seen, after a table of them, unless `leakage` allows it."""
    if report.overlaps and leakage == "refuse":
        console.table(overlap_table(report))
        left_out = exclude_word(report.tested_on, [overlap.operation for overlap in report.overlaps], report.tested)
        first = report.overlaps[0]
        raise SurgdinoError(
            "the checkpoint has seen operations that it would be tested on",
            place=report.tested_on,
            expected="operations that no training has seen",
            found=f"{len(report.overlaps)} of {report.tested} seen, such as {first.operation} "
            f"({first.seen[0].description}{first.how})",
            fix=f"leave them out where they were seen ({left_out}), choose another split, "
            "or use leakage=allow, which stamps the results",
        )


def refuse_leaks(report: LeakReport, leakage: Leakage) -> None:
    """The same, and say what is allowed and what nobody knows."""
    refuse_shared(report, leakage)
    if report.overlaps:
        console.table(overlap_table(report))
        console.say(f"leakage=allow: {report.stamp}", "bold red")
    elif report.unknown:
        console.warn(report.stamp or "")
    for sentence in report.apart:
        console.field("apart", sentence)


def overlap_table(report: LeakReport) -> Table:
    """For each tested operation that was seen: the trainings that saw it, and its videos in the test part."""
    title = f"tested operations that were seen before ({len(report.overlaps)} of {report.tested})"
    table = console.new_table(title, title_style="bold red")
    for head in ("operation", "seen by", "tested as"):
        table.add_column(head)
    for overlap in report.overlaps[:_SHOWN]:
        seen = "\n".join(dict.fromkeys(f"{each.description}{overlap.how}" for each in overlap.seen))
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
