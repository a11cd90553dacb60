"""Probes: their interface, the kinds of measures, and single findings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import ClassVar

import numpy as np

from surgdino import discovery
from surgdino.engine.probing.frames import MaskLabels, ProbeFrames
from surgdino.engine.probing.view import View
from surgdino.metrics.arrays import nanmean

LABELS, NO_LABELS = 2, 1


@dataclass(frozen=True)
class Measure:
    """A kind of number.

    Attributes:
        words: its name in tables; `{task}` stands for the task, where it is measured for several.
        percent: whether it is a share.
        margin: a fall below step 0 by more than this is warned of; None: it is never judged.
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


class Probe:
    """What is measured of a backbone. A new one is a file with one subclass.

    Attributes:
        order: its place in tables.
        measures: name of a finding -> what kind it is; a key that begins with `_` is the end of a name that begins with
            a task (`_linear_dice`).
    """

    order: int
    measures: ClassVar[Mapping[str, Measure]]

    def find(self, view: View) -> Iterator[Finding]:
        """The findings; none where the data do not have what it needs."""
        raise NotImplementedError

    def dense(self, frames: ProbeFrames, masks: MaskLabels | None) -> np.ndarray:
        """int64, places of the frames whose patch tokens it reads; by default it reads none."""
        return np.empty(0, np.int64)


_PACKAGE = "surgdino.engine.probes"


@cache
def probes() -> dict[str, Probe]:
    """Name -> probe, in the order of tables."""
    found = {n: discovery.defined(discovery.load(_PACKAGE, n, "probe"), Probe)() for n in discovery.names(_PACKAGE)}
    return dict(sorted(found.items(), key=lambda item: item[1].order))


def measure_named(name: str) -> Measure:
    """The kind of a finding's name, with its task put in.

    Raises:
        KeyError: no probe measures it.
    """
    for probe in probes().values():
        for key, measure in probe.measures.items():
            if name == key or (key.startswith("_") and name.endswith(key)):
                task = name.removesuffix(key).replace("_", " ")
                return replace(measure, words=measure.words.format(task=task))
    raise KeyError(name)
