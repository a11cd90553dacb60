"""What a task's metrics become: rows with a protocol, a spread and an interval each, and a table a kind of class."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from surgdino.errors import SurgdinoError, nearest
from surgdino.metrics.arrays import nanstd
from surgdino.metrics.intervals import jackknife

ALL = "all"
FRACTION = "fraction"

Statistic = Callable[[np.ndarray], Mapping[str, float]]


@dataclass(frozen=True)
class Score:
    """One number of a table.

    Attributes:
        name: `accuracy`, `AP_IVT`, `dice`, ...
        protocol: how it was computed, e.g. `phase/script`.
        value: on all operations; a fraction in [0, 1] unless `unit` says otherwise. NaN where it is undefined.
        std: sample standard deviation of `per_operation`; NaN below two.
        low, high: the 95 % interval over operations (metrics/intervals.py); NaN below six of them.
        n: operations on which the number is defined.
        per_operation: operation -> the same protocol on that operation alone.
        own_std, own_std_over: the "±" that the protocol itself prescribes where that runs over something else (the
            M2CAI script's runs over phases); NaN and empty elsewhere.
        unit: `fraction` or `pixels`.
    """

    name: str
    protocol: str
    value: float
    std: float
    low: float
    high: float
    n: int
    per_operation: Mapping[str, float]
    own_std: float = math.nan
    own_std_over: str = ""
    unit: str = FRACTION


@dataclass(frozen=True)
class ClassTable:
    """Numbers of every class of one kind.

    Attributes:
        title: what the classes are: `phase`, `instrument`, `triplet`, ...
        protocol: how the numbers were computed.
        rows: class -> measure -> number; whole numbers are counts.
    """

    title: str
    protocol: str
    rows: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Confusion:
    """Which class is taken for which.

    Attributes:
        title: what the classes are, and which frames count where not all do.
        rows, columns: names of what is there, and of what was predicted.
        counts: whole numbers [rows, columns], kept as tuples.
        unit: what is counted.
    """

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    counts: Sequence[Sequence[int]] | np.ndarray
    unit: str = "frames"

    def __post_init__(self) -> None:
        object.__setattr__(self, "counts", tuple(tuple(int(count) for count in row) for row in self.counts))


@dataclass(frozen=True)
class FrameScores:
    """How good single frames are, by which the best and the worst are found.

    Attributes:
        measure: what the values are; higher is better.
        rows: (video id, frame number, value, what a reader should know of it beside that, whether the answer is right:
            `yes`, `no`, or nothing where frames are neither), undefined values left out.
    """

    measure: str
    rows: Sequence[tuple[str, int, float, str, str]]


def yes_no(right: bool) -> str:
    """Whether a frame's answer is right, as `FrameScores` has it."""
    return "yes" if right else "no"


@dataclass(frozen=True)
class TaskScores:
    """All numbers of one task on one set of operations.

    Attributes:
        task: `phase`, `tools`, `triplet` or `segmentation`.
        table: the numbers, protocol by protocol.
        classes: the same by class.
        operations: operations scored.
        notes: what a reader has to know beside the numbers, such as protocols that could not be computed, and why.
        headline_row: the number that model selection looks at.
        confusions: a table a kind of class; where a task has none, none is shown.
        frames: of each frame alone; None where that means nothing.
    """

    task: str
    table: list[Score]
    classes: list[ClassTable]
    operations: int
    notes: list[str]
    headline_row: Score
    confusions: Sequence[Confusion] = ()
    frames: FrameScores | None = None

    @property
    def headline(self) -> tuple[str, float]:
        """Name and value of the one number that model selection uses; higher is better."""
        return self.headline_row.name, self.headline_row.value

    def under(self, name: str) -> TaskScores:
        """The same numbers with a further name in every protocol, such as how predictions were averaged."""

        rows = [replace(row, protocol=f"{row.protocol}/{name}") for row in self.table]
        classes = [replace(table, protocol=f"{table.protocol}/{name}") for table in self.classes]
        return replace(self, table=rows, classes=classes, headline_row=rows[self.table.index(self.headline_row)])

    @property
    def protocols(self) -> list[str]:
        """The protocols in the table, in its order."""
        return list(dict.fromkeys(row.protocol for row in self.table))


@dataclass(frozen=True)
class ScoreRequest:
    """What a task's panel is asked for.

    Attributes:
        truths: video id -> int [n] phase ids; 0/1 [n, triplets or tools]; frame number -> bool [C, H, W] masks; or what
            is true of questions.
        predictions: the same videos and frames: int [n] phase ids; float [n, triplets] of any monotone scale; or frame
            number -> bool [C, H, W]. Masks too many to hold go through `SegmentationTally`.
        classes: names in the order of the ids.
        operations: video id -> operation id; intervals and spreads are over these.
        protocol: one by name (`phase/script` or `script`), `all`, or None for the task's default ones.
        fps: phase labels per second; the relaxed protocols need it.
        mapping: which components each triplet holds; triplets need it. Of answers, which kind of question each answers.
        heads: component (I, V, T, ...) -> video id -> float [n, classes of the component]: a triplet model's own
            component heads, scored beside the maximum over triplets.
        frames: video id -> int [n] frame numbers of phase labels; where they leave gaps, no relaxed protocol is
            computed.
        unlabelled: what the truth says nothing of. Phases and triplets: the value that marks such frames in the
            truths (-1), which are left out on both sides. Masks: video id -> frame -> bool [C], True for the classes
            that are not labelled in that picture.
        tolerance_seconds: of the relaxed protocols.
        notes: what a reader has to know beside the numbers.
    """

    truths: Mapping[str, Any]
    predictions: Mapping[str, Any]
    classes: Sequence[str]
    operations: Mapping[str, str]
    protocol: str | None = None
    fps: float | None = None
    mapping: Any = None
    heads: Mapping[str, Mapping[str, np.ndarray]] | None = None
    frames: Mapping[str, np.ndarray] | None = None
    unlabelled: Any = None
    tolerance_seconds: float = 10.0
    notes: list[str] = field(default_factory=list)


def chosen(protocol: str | None, known: Sequence[str], default: Sequence[str]) -> list[str]:
    """The protocols that a name stands for: None is the default ones, `all` is all; the task's prefix may be left out.

    Raises:
        SurgdinoError: no such protocol; the nearest is named.
    """
    if protocol is None:
        return list(default)
    if protocol == ALL:
        return list(known)
    task = known[0].partition("/")[0]
    full = protocol if "/" in protocol else f"{task}/{protocol}"
    if full not in known:
        raise SurgdinoError(f"unknown {task} protocol {protocol!r}", fix=nearest(full, [*known, ALL]))
    return [full]


def score_rows(
    statistic: Statistic, owners: Sequence[str], protocol: str, units: Mapping[str, str] | None = None
) -> list[Score]:
    """A Score of each number that `statistic` gives.

    Args:
        statistic: row numbers int [m], ascending (a video or an image each) -> name -> value.
        owners: the operation of each row.
        units: name -> unit, where that is not a fraction.
    """
    owner, unit = np.asarray(owners), dict(units or {})
    each = {name: statistic(np.flatnonzero(owner == name)) for name in sorted(set(owners))}
    shares = [name for name in next(iter(each.values()), {}) if unit.get(name, FRACTION) == FRACTION]
    rows = []
    for name, interval in jackknife(statistic, owners, shares=shares).items():
        per_operation = {operation: float(values[name]) for operation, values in each.items()}
        defined = np.array(list(per_operation.values()))
        spread, count = nanstd(defined), int((~np.isnan(defined)).sum())
        ends = (interval.value, spread, interval.low, interval.high, count)
        rows.append(Score(name, protocol, *ends, per_operation, unit=unit.get(name, FRACTION)))
    return rows


def find_row(table: Sequence[Score], name: str, protocol: str) -> Score:
    """The row of that name and protocol; of that name under another, or the first, where it was not asked for."""
    named = [row for row in table if row.name == name]
    return next((row for row in named if row.protocol == protocol), (named or list(table))[0])
