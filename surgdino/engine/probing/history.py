"""When a run measures its backbone, and what it has found so far."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from surgdino.engine.probing.probe_set import ProbeSet
from surgdino.engine.probing.report import Change, ProbeReport, changes
from surgdino.metrics.arrays import as_json


@dataclass(frozen=True)
class Probing:
    """What to measure and when.

    Attributes:
        frames: what to measure on.
        every: steps; step 0 and the last are measured as well.
        both: measure student and teacher, not only the one that is shipped.
    """

    frames: ProbeSet
    every: int = 100
    both: bool = False

    def due(self, step: int, steps: int) -> bool:
        """Whether the backbone is measured after `step` of `steps`."""
        return step == 0 or step == steps or step % self.every == 0


@dataclass
class ProbeHistory:
    """What the measurements of a run have shown so far; in the main process.

    Attributes:
        start, last: the first and the latest report; both None where nothing was measured yet.
        last_step, best_step: when the latest and the best were taken.
        best: the highest score so far; NaN where there is none.
        seconds: that measuring took in this call.
    """

    start: ProbeReport | None = None
    last: ProbeReport | None = None
    last_step: int = -1
    best_step: int = -1
    best: float = math.nan
    seconds: float = 0.0

    def add(self, step: int, report: ProbeReport) -> bool:
        """Take in a measurement; True where it is the best so far."""
        self.start = self.start or report
        self.last, self.last_step = report, step
        self.seconds += report.seconds
        better = not math.isnan(report.score) and not report.score <= self.best
        if better:
            self.best, self.best_step = report.score, step
        return better

    @property
    def changes(self) -> list[Change]:
        """From step 0 to the latest measurement."""
        return changes(self.start, self.last) if self.start and self.last else []

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to go on comparing."""
        return {
            "start": self.start and self.start.state_dict(),
            "last": self.last and self.last.state_dict(),
            "last_step": self.last_step,
            "best_step": self.best_step,
            "best": self.best,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` was taken of."""
        self.start, self.last = (state[k] and ProbeReport.of_state(state[k]) for k in ("start", "last"))
        self.last_step, self.best_step, self.best = state["last_step"], state["best_step"], state["best"]

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
