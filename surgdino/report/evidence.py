"""What a run measured at step 0 and at its end, or two runs on the same operations, and what follows from it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
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


def measures_in(rows: Sequence[Row]) -> list[str]:
    """The names of all numbers that the probes hold, in their first order; without the time they took."""
    keys = dict.fromkeys(key for row in rows for key, value in row.items() if key.startswith(PROBE) and _finite(value))
    return [key.removeprefix(PROBE) for key in keys if key != f"{PROBE}seconds"]


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
        difference = paired(*((row.get(f"{PROBE}per_operation") or {}).get(name) or {} for row in (first, second)))
        ends = float(first[PROBE + name]), float(second[PROBE + name])
        interval = difference.difference if difference else None
        found.append(Change(name, measure_of(name), *ends, interval))
    return found


def paired(before: Mapping[str, Any], after: Mapping[str, Any]) -> PairedDifference | None:
    """after - before over the operations that both have a number of; None where there are none."""
    common = [op for op in sorted(before.keys() & after.keys()) if _finite(before[op]) and _finite(after[op])]
    if not common:
        return None
    return paired_difference(*({op: float(each[op]) for op in common} for each in (after, before)))


def tone_of(difference: Interval | None, more_is_better: bool | None) -> str | None:
    """`better` or `worse` where the interval excludes 0; None where it does not, or where the measure is no merit."""
    if difference is None or more_is_better is None:
        return None
    rose, fell = difference.low > 0, difference.high < 0
    return ("better" if rose == more_is_better else "worse") if rose or fell else None


def is_merit(measure: Measure) -> bool | None:
    """True where more is better; None where the measure only describes the features."""
    return True if measure.chooses == LABELS else None


def verdict(found: Sequence[Change]) -> tuple[str, str]:
    """(`better`, `worse`, `open` or `unknown`; one sentence) on the measures that operations were held out for."""
    judged = [(change, change.difference) for change in found if is_merit(change.measure) and change.difference]
    if not judged:
        return "unknown", (
            "It is not known whether the backbone became better: no operation with labels was held out to measure it. "
            "Set probe settings, or compare the two backbones with surgdino finetune."
        )
    rise = [pair for pair in judged if pair[1].low > 0]
    fall = [pair for pair in judged if pair[1].high < 0]
    measured = "; ".join(_in_words(*pair) for pair in (fall or rise or judged)[:3])
    if fall:
        return "worse", f"The adapted backbone is worse than the one it started from: {measured}."
    if rise and judged[0][1].n > 1:
        return "better", f"The adapted backbone is better than the one it started from: {measured}."
    if max(difference.n for _, difference in judged) == 1:
        return "open", f"One operation is too few to tell whether the backbone became better: {measured}."
    return "open", f"No difference that these operations could show: {measured}."


def _in_words(change: Change, difference: Interval) -> str:
    factor = 100 if change.measure.percent else 1
    interval = f", 95 % interval {change.interval}" if change.interval else ""
    return (
        f"{change.measure.words} {factor * change.before:.1f} to {factor * change.after:.1f} "
        f"({change.signed(difference.value)}{interval}, {_operations(difference.n)})"
    )


def headline(record: RunRecord) -> tuple[str, str]:
    """(tone, sentence): the number that stands for a fine-tuned run, its protocol and its interval."""
    row = headline_row(record)
    if row is None:
        return "unknown", "This run has no results yet."
    value, low, high = (f"{100 * v:.1f}" if _finite(v) else "" for v in (row["value"], *row["interval_95"]))
    interval = f", 95 % interval {low} to {high}" if low and high else ""
    count = row["operations"]
    leakage = (record.results or {}).get("leakage") or {}
    unseen = "" if leakage.get("stamp") else " not trained on"
    if leakage.get("not_known_whether_seen"):
        unseen = ", of which it is not known whether they were trained on"
    where = f"under {row['protocol']} on {_operations(count)}{unseen}"
    few = "" if count > 1 else " One operation says little about the next."
    return "open", f"{row['name']} {value} % {where}{interval}.{few}"


def headline_row(record: RunRecord) -> Row | None:
    """The row of results.json that model selection looks at, or None."""
    results = record.results or {}
    wanted = results.get("headline") or {}
    for row in results.get("scores", []):
        if (row["name"], row["protocol"]) == (wanted.get("name"), wanted.get("protocol")):
            return row
    return None


def compared(first: RunRecord, second: RunRecord) -> tuple[str, str]:
    """(tone, sentence) on the second run against the first, over the operations that both were measured on."""
    found = _difference_of_results(first, second) or _difference_of_probes(first, second)
    if found is None:
        return "unknown", (
            f"{first.name} and {second.name} were not measured on the same operations by the same measure, so nothing "
            "can be said about which is better."
        )
    title, difference = found
    interval = difference.difference
    points = f"{100 * interval.value:+.1f} points"
    if not math.isnan(interval.low):
        points += f", 95 % interval {100 * interval.low:+.1f} to {100 * interval.high:+.1f}"
    wins = f"{difference.wins} better, {difference.losses} worse"
    measured = f"{title}: {second.name} against {first.name} {points} over {_operations(interval.n)} ({wins})"
    if interval.n > 1 and (tone := tone_of(interval, True)):
        return tone, f"{second.name} is {tone}. {measured}."
    few = "One operation is too few to tell" if interval.n == 1 else "No difference that these operations could show"
    return "open", f"{few}. {measured}."


def _difference_of_results(first: RunRecord, second: RunRecord) -> tuple[str, PairedDifference] | None:
    one, other = headline_row(first), headline_row(second)
    if one is None or other is None or (one["name"], one["protocol"]) != (other["name"], other["protocol"]):
        return None
    found = paired(one["per_operation"], other["per_operation"])
    return (f"{one['name']} ({one['protocol']})", found) if found else None


def _difference_of_probes(first: RunRecord, second: RunRecord) -> tuple[str, PairedDifference] | None:
    """Of the first measure with labels in the last probe of either run."""
    ends = [probe_rows(record.rows)[-1:] for record in (first, second)]
    values = [(row.get(f"{PROBE}per_operation") or {}) for rows in ends for row in rows]
    for name in measures_in(ends[0]) if len(values) == 2 else ():
        if is_merit(measure_of(name)) and (found := paired(*(each.get(name) or {} for each in values))):
            return measure_of(name).words, found
    return None


def _operations(count: int) -> str:
    return f"{count} operation{'' if count == 1 else 's'}"


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
