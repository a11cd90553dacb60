"""What a probe can say: the kinds of measures, and single findings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType

from surgdino.metrics.arrays import nanmean
from surgdino.paths import names_in

LABELS, NO_LABELS = 2, 1


@dataclass(frozen=True)
class Measure:
    """A kind of number.

    Attributes:
        words: what people call it; `{task}` stands for the task, where it is measured for several.
        percent: whether it is a share.
        margin: a fall below step 0 by more than this is said in words; None: it is never judged.
        relative: whether the margin is a share of the value at step 0.
        chooses: whether it is part of the score that chooses the best checkpoint: LABELS, NO_LABELS (where there are no
            labels), or 0.
    """

    words: str
    percent: bool = True
    margin: float | None = 0.02
    relative: bool = False
    chooses: int = 0


@dataclass(frozen=True)
class Finding:
    """One number.

    Attributes:
        name: as in metrics.jsonl, without the prefix `probe_`.
        value: over operations where `per_operation` holds any; NaN where it could not be measured.
        per_operation: operation -> value.
        frames: how many frames were tested.
    """

    name: str
    value: float
    per_operation: Mapping[str, float] = field(default_factory=dict)
    frames: int = 0

    @classmethod
    def over(cls, name: str, per_operation: Mapping[str, float], frames: int) -> Finding:
        """The mean over operations; those whose value is undefined do not count."""
        return cls(name, float(nanmean(list(per_operation.values()))), dict(per_operation), frames)  # type: ignore[arg-type]


def probe_names() -> list[str]:
    """The probes there are: one file each in `surgdino/engine/probes/`."""
    return names_in(Path(__file__).parent.parent / "probes", ".py")


@cache
def probe_modules() -> dict[str, ModuleType]:
    """Name -> module, in the order of their `ORDER`, which is that of tables too."""
    modules = {name: import_module(f"surgdino.engine.probes.{name}") for name in probe_names()}
    return dict(sorted(modules.items(), key=lambda item: item[1].ORDER))


def measure_named(name: str) -> Measure:
    """The kind of a finding's name, its task put into words.

    A key of a probe's `MEASURES` is a name, or the end of one that begins with a task (`_linear_dice`).

    Raises:
        KeyError: no probe measures it.
    """
    for module in probe_modules().values():
        for key, measure in module.MEASURES.items():
            if name == key or (key.startswith("_") and name.endswith(key)):
                task = name.removesuffix(key).replace("_", " ")
                return replace(measure, words=measure.words.format(task=task))
    raise KeyError(name)
