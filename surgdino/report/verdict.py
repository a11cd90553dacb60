"""The verdict: what was gained, what was lost, and what is not known, each in a sentence of the same weight."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from surgdino.errors import first_of
from surgdino.metrics.intervals import ENOUGH
from surgdino.report.evidence import (
    SCORE,
    Judged,
    between_backbones,
    between_runs,
    finite,
    headline_row,
    since_start,
)
from surgdino.report.record import RunRecord
from surgdino.wording import capital, counted

BETTER, WORSE, OPEN, UNKNOWN = "better", "worse", "open", "unknown"
_NAMED = 3  # gains that are named; losses are all named


@dataclass(frozen=True)
class Verdict:
    """What stands first on a page.

    Attributes:
        lines: (tone, sentence) each: BETTER, WORSE, OPEN or UNKNOWN.
    """

    lines: Sequence[tuple[str, str]]

    @property
    def tone(self) -> str:
        """BETTER or WORSE where all that is sure points there; OPEN where it does not, or nothing is sure."""
        sure = {tone for tone, _ in self.lines} & {BETTER, WORSE}
        return sure.pop() if len(sure) == 1 else UNKNOWN if self.lines[0][0] == UNKNOWN else OPEN

    @property
    def sentence(self) -> str:
        """All of it in a line."""
        return " ".join(sentence for _, sentence in self.lines)


def verdict_of(records: Sequence[RunRecord]) -> Verdict:
    """Of one run, whatever it did, or of the second of two against the first."""
    first = records[0]
    if len(records) > 1:
        return of_two(first, records[1])
    if first.curation is not None:
        return _of_curation(first)
    if first.benchmark is not None:
        return of_benchmark(first.benchmark)
    return of_task(first) if first.results or first.section("task") else of_pretraining(first.rows)


def of_pretraining(rows: Sequence[Mapping[str, Any]]) -> Verdict:
    """By the measure that was chosen beforehand, the score that chooses the best checkpoint; then all others."""
    found = [j for j in since_start(rows) if j.better is not None and j.change.difference]
    if not found:
        why = "no operation with labels was held out to measure it"
        fix = "Set probe settings, or compare the two backbones with surgdino finetune."
        return Verdict([(UNKNOWN, f"It is not known whether the backbone became better: {why}. {fix}")])
    chosen = next((j for j in found if j.change.name == SCORE), found[0])
    return _judged(chosen, found, "The adapted backbone is {} than the one it started from")


def of_two(first: RunRecord, second: RunRecord) -> Verdict:
    """The second run against the first, over the operations that both were measured on."""
    found = [j for j in between_runs(first, second) if j.better is not None and j.change.difference]
    if not found:
        text = f"{first.name} and {second.name} were not measured on the same operations by the same measure"
        return Verdict([(UNKNOWN, f"{text}, so nothing can be said about which is better.")])
    found = [j for j in found if j.group == found[0].group]
    return _judged(found[0], found, f"{second.name} is {{}} than {first.name}")


def of_benchmark(results: Mapping[str, Any]) -> Verdict:
    """Of every backbone but the first: in what it is better and worse, and what too few operations were there for."""
    first, *others = results["backbones"]
    lines: list[tuple[str, str]] = []
    for name in others:
        found = [j for j in between_backbones(results, name) if j.better is not None]
        enough = [j for j in found if j.change.interval]
        for tone in (BETTER, WORSE):
            same = [j for j in enough if j.tone == tone]
            if same:
                share = f"{name} is {tone} than {first} in {len(same)} of {len(enough)} measures"
                lines.append((tone, f"{share}: {_named(same, tone, with_group=True)}."))
        equal, few = sum(j.tone is None for j in enough), len(found) - len(enough)
        open_ = [f"in {equal} measures no difference that these operations could show"] if equal else []
        open_ += [f"{few} measures are on fewer than {ENOUGH} operations, too few for a verdict"] if few else []
        if open_ or not found:
            text = "; ".join(open_) or "the two have no measure in common"
            lines.append((OPEN, f"Not known of {name} against {first}: {text}."))
    return Verdict(lines or [(OPEN, f"{first} alone: give a second backbone to compare it with.")])


def of_task(record: RunRecord) -> Verdict:
    """The number that stands for a fine-tuned run, where it is lowest and highest, and what it does not say."""
    row = headline_row(record)
    if row is None:
        return Verdict([(UNKNOWN, "This run has no results yet.")])
    count, each = row["operations"], {op: v for op, v in row["per_operation"].items() if finite(v)}
    leakage = (record.results or {}).get("leakage") or {}
    seen = "" if leakage.get("stamp") else " that no training has seen"
    if leakage.get("state") == "unknown":
        seen = f", of which it is not known whether {'it was' if count == 1 else 'they were'} trained on"
    form = (lambda v: f"{v:.1f} px") if row.get("unit") == "pixels" else (lambda v: f"{100 * v:.1f} %")
    low, high = row["interval_95"]
    known = finite(low) and finite(high) and count >= ENOUGH  # earlier versions wrote intervals of fewer
    interval = f"95 % interval {form(low)} to {form(high)}" if known else ""
    mean = row.get("mean_over_operations")  # of several runs
    facts = [f"mean over operations {form(mean)}"] if finite(mean) else []
    facts += [interval] if interval else []
    value = form(row["value"]) if finite(row["value"]) else "not defined"
    text = f"{capital(row['name'])} {value}{_spreads(record, row)} on {counted(count, 'operation')}{seen}"
    text += f" ({'; '.join(facts)})." if facts else "."
    if interval and each:
        worst, best = min(each, key=each.__getitem__), max(each, key=each.__getitem__)
        text += f" By operation from {form(each[worst])} ({worst}) to {form(each[best])} ({best})."
    open_ = "Not known: whether another backbone does better on them; surgdino compare says it of two runs."
    if not interval:
        listed = ", ".join(f"{op} {form(v)}" for op, v in each.items())
        open_ = f"Not known: what to expect of further operations. {_too_few(count, 'an interval')}: {listed}."
    return Verdict([(OPEN, text), (OPEN, open_)])


def _of_curation(record: RunRecord) -> Verdict:
    curation = record.curation
    assert curation is not None
    kept, total = int(curation.keep.sum()), len(curation)
    reasons = [f"{n:,} ({name})" for name, n in curation.counts() if name]
    went = f" Left out: {first_of(reasons, _NAMED)}." if reasons else ""
    text = f"{kept:,} of {total:,} frames ({100 * kept / max(total, 1):.1f} %) are worth learning from.{went}"
    lines = [(OPEN, text)]
    owner = [curation.operations[video] for video in curation.video_of.tolist()]
    without = sorted(set(owner) - {op for op, keep in zip(owner, curation.keep.tolist(), strict=True) if keep})
    if without:
        lines.append(
            (WORSE, f"Lost: {counted(len(without), 'operation')} of {len(set(owner))} whole: {first_of(without, 8)}.")
        )
    open_ = "Not known: whether training on them gives a better backbone; pretrain with and without, and compare."
    return Verdict([*lines, (OPEN, open_)])


def _judged(chosen: Judged, found: Sequence[Judged], subject: str) -> Verdict:
    """By one measure, then every other one that rose or fell beyond chance, then what is open.

    Args:
        subject: with a place for `better` or `worse`.
    """
    change = chosen.change
    assert change.difference is not None
    count, measured = change.difference.n, _in_words(chosen)
    if math.isnan(change.difference.low):
        each = ", ".join(f"{op} {change.signed(value)}" for op, value in change.by_operation.items())
        return Verdict([(OPEN, f"{_too_few(count, 'a verdict')}: {measured}. By operation: {each}.")])
    wins = sum((value > 0) == chosen.better for value in change.by_operation.values() if value)
    losses = sum((value < 0) == chosen.better for value in change.by_operation.values() if value)
    spread = f"of {counted(count, 'operation')} {wins} better, {losses} worse"
    first = subject.format(chosen.tone) if chosen.tone else "No difference that these operations could show"
    lines = [(chosen.tone or OPEN, f"{first}: {measured}; {spread}.")]
    others = [j for j in found if j is not chosen and j.change.interval and j.change.name != SCORE]
    tones = [j.tone for j in others]
    for tone, word in ((BETTER, "Gained"), (WORSE, "Lost")):
        if same := [j for j in others if j.tone == tone]:
            lines.append((tone, f"{word}: {_named(same, tone)}."))
    if equal := tones.count(None):
        chance = " One measure in twenty differs by chance alone." if len(others) >= 5 else ""
        measures = f"{equal} of {len(others)} other measures {'shows' if equal == 1 else 'show'}"
        lines.append((OPEN, f"Not known: {measures} no difference beyond chance.{chance}"))
    return Verdict(lines)


def _named(found: Sequence[Judged], tone: str, *, with_group: bool = False) -> str:
    """Every loss, and the largest gains, each with its interval."""
    size = sorted(found, key=lambda j: -abs(j.change.difference.value) if j.change.difference else 0)
    shown = size if tone == WORSE else size[:_NAMED]
    words = [f"{_in_words(j)}{f' on {j.group}' if with_group else ''}" for j in shown]
    more = [f"and {len(size) - len(shown)} more"] if len(shown) < len(size) else []
    return "; ".join([*words, *more])


def _in_words(judged: Judged) -> str:
    """`tools (mean AP) 61.8 % to 67.6 % (+5.8 points, 95 % interval +1.9 to +9.7)`."""
    change = judged.change
    assert change.difference is not None
    points = " points" if change.measure.percent else ""
    interval = f", 95 % interval {change.interval}" if change.interval else ""
    ends = f"{change.form(change.before)} to {change.form(change.after)}"
    return f"{change.measure.words} {ends} ({change.signed(change.difference.value)}{points}{interval})"


def _spreads(record: RunRecord, row: Mapping[str, Any]) -> str:
    """` ± 1.2 over 5 folds`, of the mean of several runs; empty for one."""
    results = record.results or {}
    spreads = {key: f"std_over_{key}" for key in ("folds", "seeds")}
    return "".join(
        f" ± {100 * row[spread]:.1f} over {len(results[key])} {key}"
        for key, spread in spreads.items()
        if finite(row.get(spread))
    )


def _too_few(count: int, what: str) -> str:
    return f"{counted(count, 'operation').capitalize()} {'is' if count == 1 else 'are'} too few for {what}"
