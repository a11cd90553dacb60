"""What a checkpoint, or anything it was made from, has seen, as its model.json and the header of its weights tell.

`operations` are those it was trained on, `chosen_on` those its best state was chosen on, `seen` lists both by training.
The header also carries prints (`surgdino.frames.prints`), by which an operation is known again under any name. Where
weights came from elsewhere, `history_unknown` names them: nobody here knows what they have seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from surgdino.backbone.model_json import NOT_RECORDED, Apart
from surgdino.config import typed
from surgdino.datasets.manifest import Video
from surgdino.frames.prints import Prints, References, references

How = Literal["trained on", "chosen on"]
TRAINED: How = "trained on"
CHOSEN: How = "chosen on"


@dataclass(frozen=True)
class Seen:
    """Operations that one training has seen.

    Attributes:
        by: the verb, `pretrain` or `finetune`.
        how: `trained on`, or `chosen on` where they chose the checkpoint.
        dataset, split, part: where the operations are from; None where that is not known.
        operations: their names.
        apart: from what will be tested on its frames were kept apart by their features; None where they were not.
    """

    by: str
    how: str
    dataset: str | None
    split: str | None
    part: str | None
    operations: tuple[str, ...]
    apart: Apart | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Seen:
        """What `as_dict` gave."""
        return typed(cls, row, "seen")

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
        row = {**asdict(self), "operations": list(self.operations)}
        return row if self.apart else {key: value for key, value in row.items() if key != "apart"}


@dataclass(frozen=True)
class History:
    """All trainings behind some weights.

    Attributes:
        seen: which operations each of them saw.
        prints: operation -> by what it is known again; operations of earlier versions have none.
        unknown: weights among them of which nobody knows what they have seen.
    """

    seen: tuple[Seen, ...] = ()
    prints: Mapping[str, References] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> History:
        """By a model.json, or by what is known of natural-image weights; empty for weights that begin at random."""
        return cls(tuple(seen_of(info)), info.get("prints", {}), _unknown(info))

    @classmethod
    def joined(cls, histories: Iterable[History]) -> History:
        """Of weights that were averaged."""
        each = tuple(histories)
        return cls(
            tuple(dict.fromkeys(seen for history in each for seen in history.seen)),
            {name: prints for history in each for name, prints in history.prints.items()},
            tuple(dict.fromkeys(name for history in each for name in history.unknown)),
        )

    def after(self, seen: Iterable[Seen], prints: Mapping[str, Sequence[Prints]]) -> History:
        """With one more training, and the prints of the operations that it saw."""
        more = {operation: references(videos) for operation, videos in prints.items()}
        return replace(self, seen=(*self.seen, *seen), prints={**self.prints, **more})

    def operations(self, how: How) -> list[str]:
        """All of one kind, by name."""
        return sorted({operation for each in self.seen if each.how == how for operation in each.operations})

    def facts(self) -> dict[str, Any]:
        """For model.json and the header of the weights."""
        return {
            "operations": self.operations(TRAINED),
            "chosen_on": self.operations(CHOSEN),
            "seen": [each.as_dict() for each in self.seen],
            "history_unknown": list(self.unknown),
            "prints": dict(self.prints),
        }


def seen_of(info: Mapping[str, Any]) -> list[Seen]:
    """Everything that a checkpoint has seen, by its model.json; also operations of trainings that it does not name."""
    found = [Seen.of(row) for row in info.get("seen", ())]
    if info and "seen" not in info:  # surgdino pretrain lists its datasets instead
        found = seen_of(info.get("initial_weights") or {})
        for row in info.get("datasets", ()):
            if row.get("operations"):
                found.append(Seen("pretrain", TRAINED, row["name"], None, None, tuple(row["operations"])))
    for key, how in (("operations", TRAINED), ("chosen_on", CHOSEN)):
        known = {operation for seen in found if seen.how == how for operation in seen.operations}
        if rest := tuple(sorted(set(info.get(key, ())) - known)):
            found.append(Seen("an earlier training", how, info.get("dataset"), None, None, rest))
    return found


def _unknown(info: Mapping[str, Any]) -> tuple[str, ...]:
    if "history_unknown" in info:
        return tuple(info["history_unknown"])
    begun = info.get("initial_weights")
    if not info or ("initial_weights" in info and (not begun or begun.get("known_as") or begun.get("operations"))):
        return ()
    return (NOT_RECORDED,)
