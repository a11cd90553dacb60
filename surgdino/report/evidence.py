"""Before and after: what the probes of a run measured at step 0 and at its end, and what may be concluded from it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from surgdino.engine.probing.measures import LABELS, measure_named
from surgdino.metrics.intervals import PairedDifference, paired_difference

PROBE = "probe_"
SCORE = "score"
_COST = "seconds"  # that measuring took
NETWORKS = ("student", "teacher")


@dataclass(frozen=True)
class Change:
    """One measure before and after.

    Attributes:
        name: as in metrics.jsonl, without its prefix.
        title: what people call it.
        percent: whether it is a share.
        better: whether more is better; None where it is a description, not a merit.
        before, after: the means.
        difference: after - before over operations, with its interval; None where the measure has no operations.
    """

    name: str
    title: str
    percent: bool
    better: bool | None
    before: float
    after: float
    difference: PairedDifference | None


def probe_rows(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The lines of metrics.jsonl that are probes, in the order of their steps."""
    return sorted((row for row in rows if any(key.startswith(PROBE) for key in row)), key=lambda row: row["step"])


def measures_in(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of all numbers that the probes hold, in their first order."""
    names: dict[str, None] = {}
    for row in rows:
        names |= {
            key.removeprefix(PROBE): None
            for key, value in row.items()
            if key.startswith(PROBE) and key != PROBE + _COST and _number(value)
        }
    return list(names)


def changes(rows: Sequence[Mapping[str, Any]]) -> list[Change]:
    """Every measure that was taken first and last."""
    probes = probe_rows(rows)
    if len(probes) < 2 or probes[0]["step"] == probes[-1]["step"]:
        return []
    first, last = probes[0], probes[-1]
    found = []
    for name in measures_in(probes):
        ends = [row.get(PROBE + name) for row in (first, last)]
        if all(map(_number, ends)):
            before, after = map(float, ends)  # type: ignore[arg-type]
            title, percent, better = described(name)
            found.append(Change(name, title, percent, better, before, after, _difference(first, last, name)))
    return found


def described(name: str) -> tuple[str, bool, bool | None]:
    """(title, is a share, is more better) of a measure; what only describes the features is neither."""
    if name == SCORE:
        return "score that chooses the best checkpoint", True, True
    network, _, rest = name.partition("_")
    if network in NETWORKS:
        title, percent, better = described(rest)
        return f"{title}, {network}", percent, better
    try:
        measure = measure_named(name)
    except KeyError:  # a run of another version
        return name.replace("_", " "), False, None
    return measure.words, measure.percent, True if measure.chooses == LABELS else None


def verdict(found: Sequence[Change]) -> tuple[str, str]:
    """(`better`, `worse`, `open` or `unknown`; one sentence) on the measures that operations were held out for."""
    judged = [change for change in found if change.better and change.difference is not None and change.name != SCORE]
    if not judged:
        return "unknown", (
            "Whether the backbone became better is not known: no operation with labels was held out to measure it on. "
            "Set probe settings, or compare the two by surgdino finetune."
        )
    rise = [change for change in judged if change.difference and change.difference.difference.low > 0]
    fall = [change for change in judged if change.difference and change.difference.difference.high < 0]
    told = "; ".join(_told(change) for change in (fall or rise or judged)[:3])
    if fall:
        return "worse", f"The adapted backbone is worse than the one it started from: {told}."
    if rise and judged[0].difference and judged[0].difference.difference.n > 1:
        return "better", f"The adapted backbone is better than the one it started from: {told}."
    if max(change.difference.difference.n for change in judged if change.difference) == 1:
        return "open", f"One operation is too few to tell whether the backbone became better; on it: {told}."
    return "open", f"No difference that these operations could show: {told}."


def _told(change: Change) -> str:
    assert change.difference is not None
    interval = change.difference.difference
    factor = 100 if change.percent else 1
    ends = (
        ""
        if math.isnan(interval.low)
        else f", 95 % interval {factor * interval.low:+.1f} to {factor * interval.high:+.1f}"
    )
    count = f"{interval.n} operation{'s' if interval.n != 1 else ''}"
    return (
        f"{change.title} {factor * change.before:.1f} to {factor * change.after:.1f} "
        f"({factor * interval.value:+.1f}{ends}, {count})"
    )


def _difference(first: Mapping[str, Any], last: Mapping[str, Any], name: str) -> PairedDifference | None:
    before, after = (_per_operation(row, name) for row in (first, last))
    common = before.keys() & after.keys()
    if not common:
        return None
    return paired_difference({op: after[op] for op in common}, {op: before[op] for op in common})


def _per_operation(row: Mapping[str, Any], name: str) -> dict[str, float]:
    values = (row.get(PROBE + "per_operation") or {}).get(name) or {}
    return {operation: float(value) for operation, value in values.items() if _number(value)}


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
