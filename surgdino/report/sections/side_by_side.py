"""Two runs measure by measure: the value of each, and their difference over the operations that both have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby

from surgdino.engine.probing.measures import Measure
from surgdino.engine.probing.report import Change
from surgdino.report.blocks import Block, Table
from surgdino.report.evidence import is_merit, paired, probe_changes, probe_rows, tone_of
from surgdino.report.record import RunRecord
from surgdino.report.sections import Section

Pair = tuple[str, Change, bool | None]  # the group that it is shown in, second - first, whether more is better


class SideBySide(Section):
    """Measures of fine-tuned runs by protocol, then the last probes; left out for one run."""

    id, title, order = "side-by-side", "Side by side", 3

    def blocks(self, records: Sequence[RunRecord]) -> list[Block]:
        """A table for each protocol that both runs have."""
        if len(records) != 2:
            return []
        first, second = records
        pairs = [*_results(first, second), *_probes(first, second)]
        heads = ("measure", first.name, second.name, "difference", "95 % interval", "operations in common")
        tables: list[Block] = []
        for group, members in groupby(pairs, key=lambda pair: pair[0]):
            rows: list[list[str]] = []
            tones: dict[tuple[int, int], str] = {}
            for _, change, better in members:
                if tone := tone_of(change.difference, better):
                    tones[len(rows), 3] = tone
                rows.append(_row(change))
            tables.append(Table(heads, rows, group, frozenset(range(1, 6)), frozenset(), tones))
        return tables


def _row(change: Change) -> list[str]:
    shares = change.measure.percent
    values = [f"{100 * value:.1f}" if shares else f"{value:.3g}" for value in (change.before, change.after)]
    if change.difference is None:
        return [change.measure.words, *values, "", "", ""]
    difference = change.difference
    return [change.measure.words, *values, change.signed(difference.value), change.interval, str(difference.n)]


def _results(first: RunRecord, second: RunRecord) -> Iterator[Pair]:
    of_second = {(row["protocol"], row["name"]): row for row in (second.results or {}).get("scores", [])}
    for row in (first.results or {}).get("scores", []):
        other = of_second.get((row["protocol"], row["name"]))
        if other is None or row["value"] is None or other["value"] is None:
            continue
        pixels = row.get("unit") == "pixels"
        measure = Measure(f"{row['name']} (pixels)" if pixels else row["name"], percent=not pixels)
        each = row["per_operation"], other["per_operation"]
        found, ends = paired(*each), (row["value"], other["value"])
        if found and any(values.keys() != found.values.keys() for values in each):
            measure = replace(measure, words=f"{measure.words}, mean of the operations in common")
            ends = tuple(sum(values[name] for name in found.values) / len(found.values) for values in each)
        change = Change(row["name"], measure, *ends, found.difference if found else None)
        yield f"protocol {row['protocol']}", change, not pixels


def _probes(first: RunRecord, second: RunRecord) -> Iterator[Pair]:
    one, other = (probe_rows(record.rows)[-1:] for record in (first, second))
    for change in probe_changes(one[0], other[0]) if one and other else ():
        yield "the probes at the end of training", change, is_merit(change.measure)
