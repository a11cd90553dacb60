"""The folder of a benchmark: a file a finished evaluation of a backbone, and the table of all of them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from surgdino.errors import SurgdinoError
from surgdino.evaluations.parts.outcome import Better, Outcome
from surgdino.metrics.arrays import as_json
from surgdino.metrics.intervals import Interval, interval_ends, mean_interval, paired_difference
from surgdino.paths import file_of, write_text
from surgdino.records import read_record
from surgdino.runs.names import Pseudonyms

FOLDER = "evaluations"


@dataclass(frozen=True)
class Cell:
    """One evaluation of one backbone on one kind of labels of one dataset.

    Attributes:
        evaluation: its name in the suite; `labels` are "" where it uses none.
    """

    evaluation: str
    dataset: str
    labels: str
    backbone: str

    def file(self, folder: Path) -> Path:
        """Where it is kept once it is finished."""
        labels = f"-{self.labels}" if self.labels else ""
        return file_of(folder / FOLDER, f"{self.backbone}/{self.dataset}-{self.evaluation}{labels}", ".json")

    def __str__(self) -> str:
        """In one line: `phase, linear on cholec80, natural`."""
        labels = f"{self.labels}, " if self.labels else ""
        return f"{labels}{self.evaluation} on {self.dataset}, {self.backbone}"


@dataclass(frozen=True)
class Found:
    """An outcome as a file holds it: what is not defined is None, operations are called what may leave the house."""

    name: str
    value: float | None
    per_operation: dict[str, float | None]
    better: Better | None
    percent: bool
    without: dict[str, float | None]
    curve: tuple[str, int] | None = None

    def outcome(self) -> Outcome:
        """With NaN again."""
        each, without = ({op: _number(v) for op, v in by.items()} for by in (self.per_operation, self.without))
        return Outcome(self.name, _number(self.value), each, self.better, self.percent, without, self.curve)


def found_of(outcome: Outcome) -> Found:
    """An outcome for its file."""
    return Found(**as_json(outcome))


@dataclass(frozen=True)
class Finished:
    """What a cell's file holds.

    Attributes:
        identity: a hash of all that the numbers depend on.
        seconds: that it took, features aside.
        frames: that were evaluated or learnt from.
        tested: operations.
    """

    identity: str
    seconds: float
    frames: int
    tested: int
    found: tuple[Found, ...]


def write_finished(path: Path, finished: Finished, names: Pseudonyms) -> None:
    """Keep a finished cell; it appears whole or not at all."""
    write_text(path, json.dumps(names.hide(as_json(finished)), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_finished(path: Path, identity: str) -> Finished | None:
    """What was finished before; None where there is nothing, or of other weights, data or settings."""
    try:
        finished = read_record(Finished, path)
    except SurgdinoError:  # not there, or damaged: it is measured again
        return None
    return finished if finished.identity == identity else None


def table(cells: Mapping[Cell, Finished], backbones: Sequence[str]) -> list[dict[str, Any]]:
    """A row a measure, for results.json: every backbone's value, and its change from the first one's.

    Args:
        cells: of all backbones.
        backbones: their names, in order; a row has those that were measured.
    """
    rows: dict[tuple[str, ...], dict[str, Outcome]] = {}
    for cell, finished in cells.items():
        for found in finished.found:
            place = (cell.dataset, cell.evaluation, cell.labels, found.name)
            rows.setdefault(place, {})[cell.backbone] = found.outcome()
    return [_row(place, found, backbones) for place, found in rows.items()]


def joined_leaks(leaks: Mapping[tuple[str, str], Mapping[str, Any]]) -> dict[str, Any]:
    """What the leak guard says of all backbones on all datasets: the worst state, each stamp once.

    Args:
        leaks: (dataset, backbone) -> what `LeakReport.as_dict` says.
    """
    stamps: dict[str, dict[str, list[str]]] = {}  # stamp -> dataset -> backbones
    for (dataset, backbone), leakage in leaks.items():
        if leakage["stamp"]:
            stamps.setdefault(leakage["stamp"], {}).setdefault(dataset, []).append(backbone)
    said = []
    for stamp, on in stamps.items():
        places = [f"{', '.join(backbones)} on {dataset}" for dataset, backbones in on.items()]
        said.append(f"{'; '.join(places)}: {stamp}")
    states = {leakage["state"] for leakage in leaks.values()}
    return {
        "state": next((state for state in ("shared", "unknown") if state in states), "disjoint"),
        "stamp": "; ".join(said) or None,
        "apart": sorted({sentence for leakage in leaks.values() for sentence in leakage["apart"]}),
        "each": {f"{backbone} on {dataset}": leakage for (dataset, backbone), leakage in leaks.items()},
    }


def _row(place: tuple[str, ...], found: Mapping[str, Outcome], backbones: Sequence[str]) -> dict[str, Any]:
    dataset, evaluation, labels, measure = place
    one, first = next(iter(found.values())), found.get(backbones[0])
    values, changes = {}, {}
    for name in (name for name in backbones if name in found):
        outcome = found[name]
        values[name] = {"value": outcome.value, **_ends(_interval(outcome)), "per_operation": outcome.per_operation}
        if first is not None and name != backbones[0]:
            change, each = _change(first, outcome)
            changes[name] = {"value": change.value, **_ends(change), "per_operation": each}
    return {
        "dataset": dataset,
        "evaluation": evaluation,
        "labels": labels or None,
        "measure": measure,
        "curve": one.curve,
        "better": one.better,
        "unit": "fraction" if one.percent else "number",
        "operations": sum(value == value for value in one.per_operation.values()),
        "values": values,
        "changes": changes,
    }


def _interval(outcome: Outcome) -> Interval:
    """Of a backbone's number."""
    if outcome.without or not outcome.per_operation:
        ends = interval_ends(outcome.value, list(outcome.without.values()), outcome.percent)
        return Interval(outcome.value, math.nan, *ends, len(outcome.without))
    return mean_interval(outcome.per_operation, shares=outcome.percent)


def _change(first: Outcome, second: Outcome) -> tuple[Interval, Mapping[str, float]]:
    """second - first with its interval over the operations that both have a number of, and each operation's."""
    common = [op for op in first.per_operation if _defined(first, op) and _defined(second, op)]
    each = {op: second.per_operation[op] - first.per_operation[op] for op in common}
    if first.without or not common:
        both = [op for op in first.without if op in second.without]
        value = second.value - first.value
        ends = interval_ends(value, [second.without[op] - first.without[op] for op in both], False)
        return Interval(value, math.nan, *ends, len(both)), each
    sides = ({op: outcome.per_operation[op] for op in common} for outcome in (second, first))
    return paired_difference(*sides).difference, each


def _defined(outcome: Outcome, operation: str) -> bool:
    value = outcome.per_operation.get(operation, math.nan)
    return not math.isnan(value)


def _ends(interval: Interval) -> dict[str, Any]:
    return {"interval_95": [interval.low, interval.high]}


def _number(value: float | None) -> float:
    return math.nan if value is None else value
