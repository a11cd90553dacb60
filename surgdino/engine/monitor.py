"""The monitor of a pretraining run: `metrics.jsonl`, who gets its numbers too, and warnings."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from surgdino.engine.log import NAME, Window, append_line, keep_lines
from surgdino.engine.logger import RunLog
from surgdino.engine.optim import Rates, Update
from surgdino.engine.probes.effective_rank import effective_rank
from surgdino.engine.processes import ProcessGroup

_STARVED = 0.4
_LITTLE = 60.0  # seconds of a run that a stop may always take
Pause = Literal["probe", "save"]


class Monitor:
    """Writes a line when a window of steps ends, and warns where it looks wrong.

    A line of `metrics.jsonl` is a JSON object with `step` and one of
    - the window since the line before it: `loss`, the method's terms, `gradient_norm` and fp16's `loss_scale` as means
      over the steps that counted; `skipped` in all; `lr`, `head_lr`, `weight_decay`, `momentum` and `effective_rank` of
      its last step; `images_per_second` of the steps, `data_wait` as a share of their time, `memory_mb` of the main
      process at its peak; `phase`, from 1 on, where the run has several; `probe_wait` and `save_wait`, for which the
      loop stopped since the line before, as shares of all time;
    - a probe: `probe_*`, see `surgdino.engine.train`;
    - a `warning`, in words.

    Args:
        every: steps to a window; the first and the last step end one too.
        images: per step.
        collapse: a sentence where a window's terms look like collapse.
        warn: prints a sentence.
        processes: the processes of the run, which meet where a line is due; the main one writes it.
        always: numbers that each line of a window has.
        log: who gets its numbers too.

    Attributes:
        warnings: what was warned of, each once.
        skipped: steps left out so far.
        first, last: the terms of the first and the last window.
    """

    def __init__(
        self,
        folder: Path,
        *,
        every: int,
        last_step: int,
        images: int,
        collapse: Callable[[dict[str, float]], str | None],
        warn: Callable[[str], None],
        processes: ProcessGroup | None = None,
        always: Mapping[str, int] | None = None,
        log: RunLog | None = None,
    ) -> None:
        self.file = folder / NAME
        self._log = log or RunLog(())
        self._collapse, self._warn = collapse, warn
        self._processes = processes or ProcessGroup()
        self._resumed_from, self._always = 0, dict(always or {})
        self.warnings: list[str] = []
        self.skipped = 0
        self.first: dict[str, float] = {}
        self.last: dict[str, float] = {}
        self._window = Window(
            every=every, last_step=last_step, images=images, processes=self._processes, stops=get_args(Pause)
        )
        self._went_on = dict.fromkeys(get_args(Pause), time.perf_counter())
        self.images_per_second = self._window.images_per_second

    def state_dict(self) -> dict[str, Any]:
        """What the lines to come depend on; timings excepted."""
        own = {"warnings": self.warnings, "skipped": self.skipped, "first": self.first, "last": self.last}
        return {**own, **self._window.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any], step: int, device: torch.device) -> None:
        """Resume at `step`. Later lines belong to steps that will be done again, and are dropped."""
        self.warnings, self.skipped = list(state["warnings"]), int(state["skipped"])
        self.first, self.last = state["first"], state["last"]
        self._window.load_state_dict(state, device)
        self._resumed_from = step
        if self._processes.rank == 0:
            keep_lines(self.file, lambda row: row["step"] <= step)

    def __enter__(self) -> Monitor:
        """Open the loggers, in the main process."""
        if self._processes.rank == 0:
            self._log.open(self.file.parent, resumed_from=self._resumed_from)
        return self

    def __exit__(self, *failure: object) -> None:
        self._log.close()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around the loop's wait for a batch, with which a step begins."""
        self._step_began = time.perf_counter()
        yield
        self._batch_came = time.perf_counter()

    def may_stop(self, why: Pause, share: float) -> bool:
        """Whether the loop has stopped for it no longer than `share` of this call's time, or a minute."""
        return self._window.stopped[why] <= max(_LITTLE, share * self._window.seconds)

    def since(self, why: Pause) -> float:
        """Seconds since the loop went on after its last stop for it, or since it began."""
        return time.perf_counter() - self._went_on[why]

    @contextmanager
    def stopped(self, why: Pause) -> Iterator[None]:
        """Around what stops the loop between two steps."""
        began = time.perf_counter()
        yield
        self._went_on[why] = time.perf_counter()
        self._window.stop(why, self._went_on[why] - began)

    def record(self, step: int, terms: dict[str, Tensor], update: Update, rates: Rates, features: Tensor) -> None:
        """Add a step to the window, and write the window's line where it ends.

        Args:
            features: [n, D], class tokens of this step, for their effective rank.
        """
        took, waited = time.perf_counter() - self._step_began, self._batch_came - self._step_began
        if not self._window.add(step, terms, update, took, waited):
            return
        line = self._window.close(features)
        self.skipped += line.skipped
        self.first = self.first or line.means
        self.last = line.means or self.last
        values = {
            **self._always,
            **line.means,
            "skipped": self.skipped,
            "lr": rates.backbone_lr,
            "head_lr": rates.head_lr,
            "weight_decay": rates.weight_decay,
            "momentum": rates.momentum,
            "effective_rank": float(effective_rank(line.features)),
            **line.timings,
        }
        self.write(step, values)
        if line.means:
            self.warn(step, self._collapse(line.means))
        if line.skipped:
            left_out = f"{line.skipped} of the last steps were left out and changed nothing"
            self.warn(step, f"gradients that are not finite: {left_out}")
        wait = line.timings["data_wait"]
        if wait > _STARVED and self._window.overall.steps > self._window.every:
            advice = "raise hardware.loader_workers, or put data.store on a faster disk"
            self.warn(step, f"the loop waits for data: {wait:.0%} of the time; {advice}")
        self._window.check(self.file.parent, f"step {step}")

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Append one line, and hand its numbers to the loggers; in the main process."""
        if self._processes.rank:
            return
        append_line(self.file, {"step": step, **values})
        self._log.write(step, values)

    def warn(self, step: int, sentence: str | None) -> None:
        """Print a sentence and write it down; each kind once."""
        kind = (sentence or "").partition(":")[0]
        if sentence and not any(earlier.startswith(kind) for earlier in self.warnings):
            self.warnings.append(sentence)
            self.write(step, {"warning": sentence})
            self._warn(f"step {step}: {sentence}")
