"""Two runs measure by measure: the value of either, and their difference over the operations that both have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from surgdino.metrics.intervals import PairedDifference
from surgdino.report.blocks import Block, Section, Table
from surgdino.report.evidence import PROBE, described, measures_in, paired, probe_difference, probe_rows, tone_of
from surgdino.report.record import RunRecord

ORDER = 3
_NUMERIC = frozenset({1, 2, 3, 4, 5})
_PROBES = "the probes at the end of training"


@dataclass(frozen=True)
class Pair:
    """One measure of both runs.

    Attributes:
        group: under which heading it stands: its protocol, or the probes.
        percent: shown in per cent.
        better: whether more is better; None where it is no merit.
        values: of the first and of the second run, each over all of its operations.
        difference: second - first over common operations; None where there are none.
    """

    group: str
    title: str
    percent: bool
    better: bool | None
    values: tuple[float, float]
    difference: PairedDifference | None


def build(records: Sequence[RunRecord]) -> Section | None:
    """None for one run, and for two that have no measure in common."""
    if len(records) != 2:
        return None
    first, second = records
    pairs = [*_results(first, second), *_probes(first, second)]
    blocks: list[Block] = [
        _table(group, list(of_group), first.name, second.name)
        for group, of_group in groupby(pairs, key=lambda pair: pair.group)
    ]
    return Section("side-by-side", "Side by side", blocks) if blocks else None


def _table(group: str, pairs: Sequence[Pair], first: str, second: str) -> Table:
    heads = ("measure", first, second, "difference", "95 % interval", "operations in common")
    tones = {(i, 3): tone for i, pair in enumerate(pairs) if (tone := tone_of(pair.difference, pair.better))}
    return Table(heads, [_row(pair) for pair in pairs], group, _NUMERIC, frozenset(), tones)


def _row(pair: Pair) -> list[str]:
    factor, form = (100, ".1f") if pair.percent else (1, ".3g")
    values = [f"{factor * value:{form}}" for value in pair.values]
    if pair.difference is None:
        return [pair.title, *values, "", "", ""]
    interval = pair.difference.difference
    ends = f"{factor * interval.low:+{form}} to {factor * interval.high:+{form}}" if interval.n > 1 else ""
    return [pair.title, *values, f"{factor * interval.value:+{form}}", ends, str(interval.n)]


def _results(first: RunRecord, second: RunRecord) -> Iterator[Pair]:
    """Measures of fine-tuned runs, by protocol."""
    of_second = {(row["protocol"], row["name"]): row for row in (second.results or {}).get("scores", [])}
    for row in (first.results or {}).get("scores", []):
        other = of_second.get((row["protocol"], row["name"]))
        if other is None or row["value"] is None or other["value"] is None:
            continue
        pixels = row.get("unit") == "pixels"
        title = f"{row['name']} (pixels)" if pixels else row["name"]
        difference = paired(row["per_operation"], other["per_operation"])
        values = (row["value"], other["value"])
        yield Pair(f"protocol {row['protocol']}", title, not pixels, not pixels, values, difference)


def _probes(first: RunRecord, second: RunRecord) -> Iterator[Pair]:
    """Measures of the last probe of pretraining runs."""
    ends = [probe_rows(record.rows)[-1:] for record in (first, second)]
    if not all(ends):
        return
    (one,), (other,) = ends
    names = set(measures_in([other]))
    for name in (name for name in measures_in([one]) if name in names):
        title, percent, better = described(name)
        values = (one[PROBE + name], other[PROBE + name])
        yield Pair(_PROBES, title, percent, better, values, probe_difference(one, other, name))
