"""What a run measured at step 0 and at its end, or two runs on the same operations, and what follows from it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from surgdino.engine.probing.measures import LABELS, Measure, measure_named
from surgdino.engine.probing.report import Change
from surgdino.metrics.intervals import ENOUGH, Interval, PairedDifference, paired_difference
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
        each = [_by_operation(row, name) for row in (first, second)]
        difference = paired(*each)
        ends = float(first[PROBE + name]), float(second[PROBE + name])
        # Over the same operations as the difference: not all have every label, and two runs may have held out others.
        if difference and (name == SCORE or each[0].keys() != each[1].keys()):
            ends = tuple(sum(values[op] for op in difference.values) / len(difference.values) for values in each)
        known = (difference.difference, difference.values) if difference else (None, {})
        found.append(Change(name, measure_of(name), *ends, known[0], by_operation=known[1]))
    return found


def _by_operation(row: Row, name: str) -> Mapping[str, Any]:
    """Operation -> value; of the score, the mean of the measures with labels that it is made of."""
    values = row.get(f"{PROBE}per_operation") or {}
    if name != SCORE:
        return values.get(name) or {}
    parts = [values[part] for part in measures_in([row]) if part in values and is_merit(measure_of(part))]
    found: dict[str, list[float]] = {}
    for op, value in (pair for part in parts for pair in part.items() if _finite(pair[1])):
        found.setdefault(op, []).append(value)
    return {op: sum(known) / len(known) for op, known in found.items()}


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
    """(`better`, `worse`, `open` or `unknown`; one or two sentences) by the measure that was chosen beforehand.

    That is the score that chooses the best checkpoint; without it, the first measure with labels. The others are
    counted, and a fall beyond chance in any of them is named.
    """
    judged = [change for change in found if change.difference and (change.name == SCORE or is_merit(change.measure))]
    if not judged:
        return "unknown", (
            "It is not known whether the backbone became better: no operation with labels was held out to measure it. "
            "Set probe settings, or compare the two backbones with surgdino finetune."
        )
    chosen = next((change for change in judged if change.name == SCORE), judged[0])
    others = [change for change in judged if change is not chosen and change.name.partition("_")[0] not in NETWORKS]
    measured, tone = f"{_in_words(chosen)}.", tone_of(chosen.difference, True)
    if chosen.difference and math.isnan(chosen.difference.low):
        return "open", f"{_too_few(chosen.difference.n)}: {measured}"
    first = {
        "better": "The adapted backbone is better than the one it started from: ",
        "worse": "The adapted backbone is worse than the one it started from: ",
        None: "No difference that these operations could show: ",
    }[tone]
    tones = [tone_of(change.difference, True) for change in others]
    fell = [_in_words(change) for change, each in zip(others, tones, strict=True) if each == "worse"]
    rest = ""
    if len(others) > 1 or fell:
        rest = f" Of {len(others)} other measures {tones.count('better')} rose and {len(fell)} fell beyond chance"
        rest += f": {'; '.join(fell)}." if fell else "."
    return ("open" if fell and tone == "better" else tone or "open"), f"{first}{measured}{rest}"


def _too_few(operations: int) -> str:
    return f"{_operations(operations).capitalize()} {'is' if operations == 1 else 'are'} too few for a verdict"


def _in_words(change: Change) -> str:
    assert change.difference is not None
    ends = (
        f"{100 * value:.1f}" if change.measure.percent else f"{value:.3g}" for value in (change.before, change.after)
    )
    spread = f"95 % interval {change.interval}, {_operations(change.difference.n)}"
    if not change.interval:
        each = (f"{operation} {change.signed(value)}" for operation, value in change.by_operation.items())
        spread = f"by operation: {', '.join(each)}"
    return f"{change.measure.words} {' to '.join(ends)} ({change.signed(change.difference.value)}; {spread})"


def headline(record: RunRecord) -> tuple[str, str]:
    """(tone, sentence): the number that stands for a fine-tuned run, its protocol and its interval."""
    row = headline_row(record)
    if row is None:
        return "unknown", "This run has no results yet."
    value, low, high = (f"{100 * v:.1f}" if _finite(v) else "" for v in (row["value"], *row["interval_95"]))
    count = row["operations"]
    enough = count >= ENOUGH  # results of an earlier version have intervals of fewer
    interval = f", 95 % interval {low} to {high}" if low and high and enough else ""
    leakage = (record.results or {}).get("leakage") or {}
    unseen = "" if leakage.get("stamp") else " not trained on"
    if leakage.get("state") == "unknown":
        unseen = ", of which it is not known whether they were trained on"
    where = f"under {row['protocol']} on {_operations(count)}{unseen}"
    each = [f"{operation} {100 * v:.1f}" for operation, v in row["per_operation"].items() if _finite(v)]
    few = "" if enough else f" Too few for an interval; by operation: {', '.join(each)}."
    mean = "mean_over_operations"  # of several runs
    by_operation = f"; mean over operations {100 * row[mean]:.1f} %" if _finite(row.get(mean)) else ""
    return "open", f"{row['name']} {value} %{_spreads(record, row)} {where}{by_operation}{interval}.{few}"


def _spreads(record: RunRecord, row: Row) -> str:
    """` ± 1.2 over 5 folds`, of the mean of several runs; empty for one."""
    results = record.results or {}
    spreads = {key: f"std_over_{key}" for key in ("folds", "seeds")}
    return "".join(
        f" ± {100 * row[spread]:.1f} over {len(results[key])} {key}"
        for key, spread in spreads.items()
        if _finite(row.get(spread))
    )


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
    if tone := tone_of(interval, True):
        return tone, f"{second.name} is {tone}. {measured}."
    if math.isnan(interval.low):
        each = ", ".join(f"{operation} {100 * value:+.1f}" for operation, value in difference.values.items())
        return "open", f"{_too_few(interval.n)}. {measured}; by operation: {each}."
    return "open", f"No difference that these operations could show. {measured}."


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
