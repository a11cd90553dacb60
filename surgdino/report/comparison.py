"""What may be said of a fine-tuned run in one sentence, and of two runs that were measured on the same operations."""

from __future__ import annotations

import math
from collections.abc import Mapping

from surgdino.metrics.intervals import PairedDifference
from surgdino.report.evidence import SCORE, described, measures_in, paired, probe_difference, probe_rows
from surgdino.report.record import RunRecord


def headline(record: RunRecord) -> tuple[str, str]:
    """(tone, sentence): the number that stands for a fine-tuned run, its protocol and its interval."""
    row = headline_row(record)
    if row is None:
        return "unknown", "This run has no results yet."
    value, low, high = map(_percent, (row["value"], *row["interval_95"]))
    interval = f", 95 % interval {low} to {high}" if low and high else ""
    count = row["operations"]
    plural = "" if count == 1 else "s"
    sentence = f"{row['name']} {value} % under {row['protocol']} on {count} operation{plural} not trained on{interval}."
    return "open", sentence if count > 1 else f"{sentence} One operation says little about the next."


def headline_row(record: RunRecord) -> Mapping | None:
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
            f"{first.name} and {second.name} were not measured on the same operations by the same measure, so there is "
            "nothing to say about which is better."
        )
    title, difference = found
    interval = difference.difference
    points = f"{100 * interval.value:+.1f} points"
    if not math.isnan(interval.low):
        points += f", 95 % interval {100 * interval.low:+.1f} to {100 * interval.high:+.1f}"
    count = f"{interval.n} operation{'s' if interval.n != 1 else ''}"
    split = f"{difference.wins} better, {difference.losses} worse"
    told = f"{title}: {second.name} against {first.name} {points} over {count} ({split})"
    if interval.n > 1 and interval.low > 0:
        return "better", f"{second.name} is better. {told}."
    if interval.n > 1 and interval.high < 0:
        return "worse", f"{second.name} is worse. {told}."
    few = "One operation is too few to tell" if interval.n == 1 else "No difference that these operations could show"
    return "open", f"{few}. {told}."


def _difference_of_results(first: RunRecord, second: RunRecord) -> tuple[str, PairedDifference] | None:
    rows = headline_row(first), headline_row(second)
    if rows[0] is None or rows[1] is None or rows[0]["name"] != rows[1]["name"]:
        return None
    if rows[0]["protocol"] != rows[1]["protocol"]:
        return None
    found = paired(rows[0]["per_operation"], rows[1]["per_operation"])
    return None if found is None else (f"{rows[0]['name']} ({rows[0]['protocol']})", found)


def _difference_of_probes(first: RunRecord, second: RunRecord) -> tuple[str, PairedDifference] | None:
    ends = [probe_rows(record.rows)[-1:] for record in (first, second)]
    if not all(ends):
        return None
    names = [name for name in measures_in(ends[0]) if described(name)[2] and name != SCORE]
    for name in names:
        found = probe_difference(ends[0][0], ends[1][0], name)
        if found is not None:
            return described(name)[0], found
    return None


def _percent(value: object) -> str:
    return f"{100 * value:.1f}" if isinstance(value, int | float) and math.isfinite(value) else ""
