"""What changed: from step 0 to a run's end, between two runs on the same operations, between two backbones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from surgdino.engine.probing.measures import LABELS, Measure, measure_named
from surgdino.engine.probing.report import Change
from surgdino.metrics.intervals import Interval, PairedDifference, paired_difference
from surgdino.report.record import RunRecord

PROBE = "probe_"  # what the keys of probes begin with in metrics.jsonl
SCORE = "score"
NETWORKS = ("student", "teacher")
Row = Mapping[str, Any]


def probe_rows(rows: Sequence[Row]) -> list[Row]:
    """The lines of metrics.jsonl that are probes, in the order of their steps."""
    return sorted((row for row in rows if any(key.startswith(PROBE) for key in row)), key=lambda row: row["step"])


def phase_bounds(rows: Sequence[Row]) -> list[float]:
    """The steps at which a phase of a run ends and the next begins."""
    own = [row for row in rows if "phase" in row]
    return [row["step"] for row, following in pairwise(own) if following["phase"] != row["phase"]]


def measures_in(rows: Sequence[Row]) -> list[str]:
    """The names of all numbers that the probes hold, in their first order; without the time that they took."""
    keys = dict.fromkeys(key for row in rows for key, value in row.items() if key.startswith(PROBE) and finite(value))
    return [key.removeprefix(PROBE) for key in keys if key not in (f"{PROBE}seconds", f"{PROBE}wait")]


def measure_of(name: str) -> Measure:
    """The measure of a name in metrics.jsonl without its prefix; one of another version is a plain number."""
    if name == SCORE:
        return Measure("score that chooses the best checkpoint", margin=None)
    network, _, rest = name.partition("_")
    if network in NETWORKS:
        measure = measure_of(rest)
        return replace(measure, words=f"{measure.words}, {network}")
    try:
        return measure_named(name)
    except KeyError:
        return Measure(name.replace("_", " "), percent=False, margin=None)


def changes(rows: Sequence[Row]) -> list[Change]:
    """Every measure that was taken first and last."""
    probes = probe_rows(rows)
    if len(probes) < 2 or probes[0]["step"] == probes[-1]["step"]:
        return []
    return probe_changes(probes[0], probes[-1])


def probe_changes(first: Row, second: Row) -> list[Change]:
    """second - first of every measure that two probes have in common."""
    found = []
    common = set(measures_in([second]))
    for name in (name for name in measures_in([first]) if name in common):
        each = [by_operation(row, name) for row in (first, second)]
        difference = paired(*each)
        ends = float(first[PROBE + name]), float(second[PROBE + name])
        # Over the same operations as the difference: not all have every label, and two runs may have held out others.
        if difference and (name == SCORE or each[0].keys() != each[1].keys()):
            ends = _means(each, difference)
        found.append(_change(name, measure_of(name), ends, difference))
    return found


def by_operation(row: Row, name: str) -> Mapping[str, Any]:
    """Operation -> value; of the score, the mean of the measures with labels that it is made of."""
    values = row.get(f"{PROBE}per_operation") or {}
    if name != SCORE:
        return values.get(name) or {}
    parts = [values[part] for part in measures_in([row]) if part in values and measure_of(part).chooses == LABELS]
    found: dict[str, list[float]] = {}
    for op, value in (pair for part in parts for pair in part.items() if finite(pair[1])):
        found.setdefault(op, []).append(value)
    return {op: sum(known) / len(known) for op, known in found.items()}


def paired(before: Mapping[str, Any], after: Mapping[str, Any]) -> PairedDifference | None:
    """after - before over the operations that both have a number of; None where there are none."""
    common = [op for op in sorted(before.keys() & after.keys()) if finite(before[op]) and finite(after[op])]
    if not common:
        return None
    return paired_difference(*({op: float(each[op]) for op in common} for each in (after, before)))


def _means(each: Sequence[Mapping[str, Any]], difference: PairedDifference) -> tuple[float, float]:
    """Of both states, over the operations of the difference."""
    before, after = (sum(values[op] for op in difference.values) / len(difference.values) for values in each)
    return before, after


def _change(name: str, measure: Measure, ends: tuple[float, float], difference: PairedDifference | None) -> Change:
    known = (difference.difference, difference.values) if difference else (None, {})
    return Change(name, measure, *ends, known[0], by_operation=known[1])


def is_merit(measure: Measure) -> bool | None:
    """True where more is better: a fall of a share is warned of. None where the measure only describes the features."""
    return True if measure.chooses == LABELS or (measure.margin is not None and not measure.relative) else None


@dataclass(frozen=True)
class Judged:
    """A change and what it means.

    Attributes:
        change: from one state, run or backbone to another.
        better: whether more of it is better; None where it is no merit.
        group: under which it is shown.
    """

    change: Change
    better: bool | None
    group: str = ""

    @property
    def tone(self) -> str | None:
        """`better` or `worse` where the interval excludes 0; None where it does not, or where it is no merit."""
        difference = self.change.difference
        if difference is None or self.better is None or not (difference.low > 0 or difference.high < 0):
            return None
        return "better" if (difference.low > 0) == self.better else "worse"


def since_start(rows: Sequence[Row]) -> list[Judged]:
    """What a run measured first and last."""
    return [Judged(c, True if c.name == SCORE else is_merit(c.measure)) for c in changes(rows)]


def between_runs(first: RunRecord, second: RunRecord) -> list[Judged]:
    """Measures of fine-tuned runs by protocol, the headline first, then the probes at the end of training."""
    of_second = {(row["protocol"], row["name"]): row for row in (second.results or {}).get("scores", [])}
    found: list[Judged] = []
    top = headline_row(first)
    for row in (first.results or {}).get("scores", []):
        other = of_second.get((row["protocol"], row["name"]))
        if other is not None and row["value"] is not None and other["value"] is not None:
            judged = _between_scores(row, other)
            found.insert(0 if row is top else len(found), judged)
    one, two = (probe_rows(record.rows)[-1:] for record in (first, second))
    last = probe_changes(one[0], two[0]) if one and two else []
    return found + [Judged(c, is_merit(c.measure), "the probes at the end of training") for c in last]


def _between_scores(row: Row, other: Row) -> Judged:
    pixels = row.get("unit") == "pixels"
    measure = Measure(f"{row['name']} (pixels)" if pixels else row["name"], percent=not pixels)
    each = row["per_operation"], other["per_operation"]
    difference, ends = paired(*each), (row["value"], other["value"])
    if difference and any(values.keys() != difference.values.keys() for values in each):
        measure = replace(measure, words=f"{measure.words}, mean of the operations in common")
        ends = _means(each, difference)
    return Judged(_change(row["name"], measure, ends, difference), not pixels, f"protocol {row['protocol']}")


def between_backbones(results: Mapping[str, Any], name: str) -> list[Judged]:
    """Every measure of a benchmark that the first backbone and this one have."""
    start, found = next(iter(results["backbones"])), []
    for row in results["rows"]:
        change, before, after = row["changes"].get(name), *(row["values"].get(k) for k in (start, name))
        if not change or not before or not after or change["value"] is None:
            continue
        labels = f"{row['labels']}, " if row["labels"] else ""
        measure = Measure(f"{labels}{row['evaluation']}: {row['measure']}", percent=row["unit"] == "fraction")
        each = {op: value for op, value in change["per_operation"].items() if value is not None}
        low, high = (math.nan if end is None else end for end in change["interval_95"])
        difference = Interval(change["value"], math.nan, low, high, len(each))
        both = Change(row["measure"], measure, before["value"], after["value"], difference, by_operation=each)
        found.append(Judged(both, {"higher": True, "lower": False, None: None}[row["better"]], row["dataset"]))
    return found


def headline_row(record: RunRecord) -> Row | None:
    """The row of results.json that model selection looks at, or None."""
    results = record.results or {}
    wanted = results.get("headline") or {}
    for row in results.get("scores", []):
        if (row["name"], row["protocol"]) == (wanted.get("name"), wanted.get("protocol")):
            return row
    return None


def finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
