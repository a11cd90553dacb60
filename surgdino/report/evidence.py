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
            found.append(Change(name, title, percent, better, before, after, probe_difference(first, last, name)))
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


def probe_difference(first: Mapping[str, Any], second: Mapping[str, Any], name: str) -> PairedDifference | None:
    """second - first of a measure in two lines of metrics.jsonl, as `paired`."""
    return paired(*((row.get(PROBE + "per_operation") or {}).get(name) or {} for row in (first, second)))


def paired(before: Mapping[str, Any], after: Mapping[str, Any]) -> PairedDifference | None:
    """after - before over the operations that both have a number of; None where there are none."""
    numbers = [{op: float(value) for op, value in each.items() if _number(value)} for each in (before, after)]
    common = sorted(numbers[0].keys() & numbers[1].keys())
    if not common:
        return None
    return paired_difference(*({op: each[op] for op in common} for each in reversed(numbers)))


def tone_of(difference: PairedDifference | None, better: bool | None) -> str | None:
    """`better` or `worse` where the interval excludes 0; `better` says whether more is, None that it is no merit."""
    if difference is None or better is None:
        return None
    rose, fell = difference.difference.low > 0, difference.difference.high < 0
    return ("better" if rose == better else "worse") if rose or fell else None


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
