"""One measurement, what changed from one to another, and the measurements of a run so far."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from surgdino.engine.probing.measures import Finding, Measure, measure_named
from surgdino.metrics.arrays import as_json
from surgdino.metrics.intervals import ENOUGH, Interval, paired_difference


@dataclass(frozen=True)
class ProbeReport:
    """One measurement of a backbone.

    Attributes:
        score: what chooses the best checkpoint; NaN where nothing can.
        score_of: the findings that it is the mean of.
        findings: name -> finding.
        seconds: that it took, reading the frames the first time included.
    """

    score: float
    score_of: tuple[str, ...]
    findings: Mapping[str, Finding]
    seconds: float = 0.0

    def as_dict(self) -> dict[str, float]:
        """Plain numbers: `score`, then every finding."""
        return {"score": self.score, **{name: finding.value for name, finding in self.findings.items()}}

    @property
    def per_operation(self) -> dict[str, dict[str, float]]:
        """Finding -> operation -> value, of those that are means over operations."""
        return {name: dict(f.per_operation) for name, f in self.findings.items() if f.per_operation}

    def state_dict(self) -> dict[str, Any]:
        """Everything in plain values."""
        return {**asdict(self), "score_of": list(self.score_of)}

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> ProbeReport:
        """From what `state_dict` returned."""
        findings = {name: Finding(**values) for name, values in state["findings"].items()}
        return cls(state["score"], tuple(state["score_of"]), findings, state["seconds"])


@dataclass(frozen=True)
class Change:
    """One measure at step 0 and now.

    Attributes:
        name: of the finding.
        measure: what kind it is.
        before, after: values.
        difference: after - before over operations, where there are enough of them.
        margin: a smaller fall is taken for noise.
        fell: whether it fell by more.

    The report makes its own from metrics.jsonl, without `margin` and `fell`, but with `by_operation`: the differences.
    """

    name: str
    measure: Measure
    before: float
    after: float
    difference: Interval | None
    margin: float = math.nan
    fell: bool = False
    by_operation: Mapping[str, float] = field(default_factory=dict)

    def form(self, value: float) -> str:
        """A value as tables and sentences show it."""
        if math.isnan(value):
            return "-"
        return f"{100 * value:.1f} %" if self.measure.percent else f"{value:.3g}"

    def signed(self, value: float) -> str:
        """A difference of two values: in points where they are shares."""
        if math.isnan(value):
            return "-"
        return f"{100 * value:+.1f}" if self.measure.percent else f"{value:+.3g}"

    @property
    def interval(self) -> str:
        """The ends of the difference's 95 % interval; empty where there is none."""
        if self.difference is None or math.isnan(self.difference.low):
            return ""
        return f"{self.signed(self.difference.low)} to {self.signed(self.difference.high)}"

    def sentence(self, step: int) -> str:
        """The fall in words."""
        how = f"margin {self.form(self.margin)}"
        if self.difference is not None:
            how += f", 95 % interval of the change over {self.difference.n} operations below 0"
        return (
            f"the backbone got worse than at step 0 in {self.measure.words}: "
            f"{self.form(self.before)} at step 0, {self.form(self.after)} at step {step} ({how})"
        )


def changes(start: ProbeReport, now: ProbeReport) -> list[Change]:
    """What both measurements have, in the order of tables."""
    return [_change(start.findings[name], now.findings[name]) for name in start.findings if name in now.findings]


def _change(before: Finding, after: Finding) -> Change:
    """A fall counts beyond the measure's margin or, for shares, one standard error of a share on as many frames.

    That error is at most 1 / (2 sqrt(n)); the two measurements share their frames, so their difference varies less.
    With `ENOUGH` operations or more the margin alone holds, and the interval of the difference over operations must
    lie below 0 too.
    """
    measure, difference = measure_named(after.name), None
    both = before.per_operation.keys() & after.per_operation.keys()
    first, second = ({op: float(f.per_operation[op]) for op in both} for f in (after, before))
    if min(_defined(first), _defined(second)) >= ENOUGH:
        difference = paired_difference(first, second).difference
    if measure.margin is None:
        return Change(after.name, measure, before.value, after.value, difference)
    margin = measure.margin * (abs(before.value) if measure.relative else 1)
    if difference is None and measure.percent and not measure.relative and after.frames:
        margin = max(margin, 0.5 / math.sqrt(after.frames))
    fell = before.value - after.value > margin and (difference is None or difference.high < 0)
    return Change(after.name, measure, before.value, after.value, difference, margin, fell)


def _defined(values: Mapping[str, float]) -> int:
    return sum(value == value for value in values.values())


@dataclass
class ProbeHistory:
    """What the measurements of a run have shown so far; in the main process.

    Attributes:
        start, last: the first and the latest report; both None where nothing was measured yet.
        last_step, best_step: when the latest and the best were taken.
        best: the highest score so far; NaN where there is none.
        seconds: that measuring took in this call.
        since_best: measurements after the best one.
    """

    start: ProbeReport | None = None
    last: ProbeReport | None = None
    last_step: int = -1
    best_step: int = -1
    best: float = math.nan
    seconds: float = 0.0
    since_best: int = 0

    def add(self, step: int, report: ProbeReport) -> bool:
        """Take in a measurement; True where it is the best so far."""
        self.start = self.start or report
        self.last, self.last_step = report, step
        self.seconds += report.seconds
        better = not math.isnan(report.score) and not report.score <= self.best
        self.since_best = 0 if better else self.since_best + 1
        if better:
            self.best, self.best_step = report.score, step
        return better

    @property
    def changes(self) -> list[Change]:
        """From step 0 to the latest measurement."""
        return changes(self.start, self.last) if self.start and self.last else []

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs for later comparisons."""
        return {
            "start": self.start and self.start.state_dict(),
            "last": self.last and self.last.state_dict(),
            "last_step": self.last_step,
            "best_step": self.best_step,
            "best": self.best,
            "since_best": self.since_best,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what `state_dict` returned."""
        self.start, self.last = (state[k] and ProbeReport.of_state(state[k]) for k in ("start", "last"))
        self.last_step, self.best_step, self.best = state["last_step"], state["best_step"], state["best"]
        self.since_best = state.get("since_best", 0)

    def summary(self, step: int) -> dict[str, Any]:
        """For model.json of what was just measured, or a later step's; empty where nothing chooses."""
        if self.start is None or self.last is None:
            return {}
        measured = self.last.as_dict() if self.last_step == step else {}
        return as_json(
            {
                "score": measured.get("score"),
                "score_at_step_0": self.start.score,
                "score_is_mean_of": self.start.score_of,
                "best_step": self.best_step,
                "best_score": self.best,
                "measured": measured,
            }
        )
