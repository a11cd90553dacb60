"""The runs that one fine-tuning stands for, where `data.split` names several folds or `train.seeds` several seeds."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from surgdino.config import Text, typed
from surgdino.datasets.card import Card, stride
from surgdino.errors import SurgdinoError
from surgdino.inputs.settings import DataSettings, manifest_of
from surgdino.paths import safe_name
from surgdino.runs.names import Mode
from surgdino.tasks.labelled_frames import labels_of
from surgdino.tasks.settings import HeadTraining

ALL = "cv"  # as data.split: every fold of the card; as its key: how many folds to draw
_FOLD = re.compile(r"fold\d+")
Split = str | dict[str, Any]


@dataclass(frozen=True)
class FoldRule:
    """`data.split={cv: 5, val: every 5th}`: how many folds, and which of the others' operations are for validation."""

    cv: Annotated[int, Field(ge=2, le=100)]
    val: Text | None = None

    def __post_init__(self) -> None:
        if self.val is not None and stride(self.val) is None:
            raise SurgdinoError("data.split.val cannot be used", expected="such as every 5th", found=self.val)


@dataclass(frozen=True)
class PlannedRun:
    """One run of several.

    Attributes:
        name: of its folder in that of all.
        fold: how its split is called.
        split: what it is trained and tested on.
        seed: its `train.seed`.
    """

    name: str
    fold: str
    split: Split
    seed: int

    def settings(self, cfg: Mapping[str, Any], folder: Path | None, names: Mode) -> dict[str, Any]:
        """The settings of this run alone: with the same, `surgdino finetune` makes it anywhere."""
        checkpoint = cfg["checkpoint"]
        if isinstance(checkpoint, str):  # a backbone for each
            checkpoint = checkpoint.replace("{fold}", safe_name(self.fold)).replace("{seed}", str(self.seed))
        data, train = {**cfg["data"], "split": self.split}, {**cfg["train"], "seed": self.seed, "seeds": None}
        run = {**cfg["run"], "dir": None if folder is None else str(folder), "names": names}
        return {**cfg, "checkpoint": checkpoint, "data": data, "train": train, "run": run}


def are_several(data: DataSettings, train: HeadTraining) -> bool:
    """Whether the settings ask for more than one run."""
    return train.seeds is not None or _many(data.split)


def planned_runs(card: Card, data: DataSettings, train: HeadTraining, labels: str) -> list[PlannedRun]:
    """Every fold with every seed; the order is that of the settings, seeds within folds.

    Args:
        labels: the kind that the task learns.

    Raises:
        SurgdinoError: the card lists no folds, or there are fewer operations with labels than folds.
    """
    if data.split is None or (isinstance(data.split, str) and data.split != ALL):
        folds: dict[str, Any] = {data.split or "": data.split}
    elif isinstance(data.split, dict):
        folds = _drawn(card, data, train.seed, labels) if ALL in data.split else {"inline split": data.split}
    else:
        listed = _folds_of(card, data) if data.split == ALL else list(data.split)
        folds = {name: name for name in listed}
        if len(folds) < len(listed) or not listed:
            raise SurgdinoError("data.split cannot be used", expected="splits that differ", found=str(listed))
    count = train.seeds or 1
    seeds = range(train.seed, train.seed + count) if isinstance(count, int) else count
    runs = []
    for fold, split in folds.items():
        of_fold = [safe_name(fold)] if _many(data.split) else []
        for seed in seeds:
            of_seed = [f"seed{seed}"] if train.seeds is not None else []
            runs.append(PlannedRun("-".join(of_fold + of_seed), fold, split, seed))
    return runs


@contextmanager
def in_run(name: str) -> Iterator[None]:
    """Whatever is refused in here says which run it concerns."""
    try:
        yield
    except SurgdinoError as error:
        raise error.but(what=f"{name}: {error.what}") from error


def _many(split: object) -> bool:
    return split == ALL or isinstance(split, tuple) or (isinstance(split, dict) and ALL in split)


def _folds_of(card: Card, data: DataSettings) -> list[str]:
    """The splits of a card, or of the folder, that are a cross-validation: those called `fold1`, `fold2`, ..."""
    folds = [name for name in card.splits if _FOLD.fullmatch(name)]
    if not folds:
        folds = [name for name in manifest_of(card, replace(data, split=None)).splits if _FOLD.fullmatch(name)]
    if not folds:
        raise SurgdinoError(
            f"the card of dataset={card.name} has no folds",
            expected="splits called fold1, fold2, ...",
            found=", ".join(card.splits) or "no splits",
            fix="draw them: data.split={cv: 5}",
        )
    return folds


def _drawn(card: Card, data: DataSettings, seed: int, labels: str) -> dict[str, Split]:
    """Folds of the operations with labels, of sizes that differ by one at most; the seed alone decides their order."""
    rule = typed(FoldRule, data.split, "data.split")  # type: ignore[arg-type]
    manifest = manifest_of(card, replace(data, split=None))
    labelled = labels_of(manifest, labels).values
    operations = {video.operation for video in manifest.videos if video.id in labelled}
    if len(operations) < rule.cv:
        expected, found = f"at least {rule.cv}, one a fold", f"{len(operations)} with labels of kind {labels!r}"
        raise SurgdinoError("too few operations for these folds", file=data.root, expected=expected, found=found)
    order = sorted(operations, key=lambda each: hashlib.sha256(f"{seed} {each}".encode()).hexdigest())
    folds: dict[str, Split] = {}
    for place in range(rule.cv):
        test = order[place :: rule.cv]
        rest = [each for number, each in enumerate(order) if number % rule.cv != place]
        step = stride(rule.val) if rule.val else None
        val = rest[::step] if step else []
        train = [each for number, each in enumerate(rest) if not step or number % step]
        parts = {"train": train, "val": val, "test": test}
        folds[f"fold{place + 1}"] = {part: sorted(each) for part, each in parts.items() if each}
    return folds
