"""What a stage says of its training, in `metrics.jsonl` and on the progress bar."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from surgdino.engine.metrics_file import NAME, append_line, keep_lines
from surgdino.engine.monitor import BAD_STEPS_IN_A_ROW, Clock, memory_mb
from surgdino.engine.optim import Update
from surgdino.engine.parallel.across import Across
from surgdino.errors import SurgdinoError


class StageLog:
    """Collects on the device and reads it back only when a line is due.

    A line is a JSON object with `stage`, `step`, and either the window since the line before it (`loss` and the stage's
    other terms, `gradient_norm`, `lr`, `skipped`, `images_per_second`, `data_wait`, `memory_mb`) or a validation
    (`val_*`, `best`).

    Attributes:
        last: the terms of the last window.
    """

    def __init__(self, folder: Path, stage: str, *, every: int, last_step: int, batch: int, across: Across) -> None:
        """Args:
        folder: of the run.
        every: steps to a window; the first and the last step end one too.
        batch: samples a step.
        """
        self.file = folder / NAME
        self.last: dict[str, float] = {}
        self._stage, self._every, self._last_step, self._batch = stage, every, last_step, batch
        self._across = across
        self._window: dict[str, Tensor] = {}
        self._streak: Tensor | float = 0.0
        self._clock, self._overall = Clock(), Clock()

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """The window that is open, the same in every process."""
        return {"window": self._of_all()}

    def load_state_dict(self, state: Mapping[str, Mapping[str, Tensor]], step: int, device: torch.device) -> None:
        """Take over at `step`; lines of this stage's later steps go, since they will be done again."""
        self._window = {name: value.to(device, torch.float64) for name, value in state["window"].items()}
        if self._across.rank == 0:
            keep_lines(self.file, lambda row: row.get("stage") != self._stage or row["step"] <= step)

    def record(self, step: int, terms: Mapping[str, Tensor], update: Update, lr: float, times: tuple[float, float]):
        """Add a step, and write the window's line where it ends.

        A step whose gradient was not finite changed nothing and does not enter the means.

        Args:
            times: seconds that the step took, and of them those spent waiting for its batch.

        Raises:
            SurgdinoError: many steps in a row had no finite gradient.
        """
        counts = 1.0 - update.skipped
        for name, value in {**terms, "gradient_norm": update.gradient_norm}.items():
            self._add(name, torch.where(counts.bool(), value.detach().float(), 0.0))
        self._add("steps", counts)
        self._add("skipped", update.skipped)
        self._streak = (self._streak + update.skipped) * update.skipped
        for clock in (self._clock, self._overall):
            clock.add(*times)
        if step == 1 or step == self._last_step or step % self._every == 0:
            self._end_window(step, lr)

    def validated(self, step: int, numbers: Mapping[str, float], best: bool) -> None:
        """Write down a validation."""
        self._write(step, {**{f"val_{name}": value for name, value in numbers.items()}, "best": best})

    def images_per_second(self) -> float:
        """Samples, waiting for data included, validating and saving not."""
        return self._overall.steps * self._batch / max(self._overall.seconds, 1e-9)

    def _add(self, name: str, value: Tensor) -> None:
        """In float64, as in `surgdino.engine.monitor`: exact, so that the order of the sum does not matter."""
        self._window[name] = self._window.get(name, 0.0) + value.double()

    def _of_all(self) -> dict[str, Tensor]:
        if not self._window:
            return {}
        means = self._across.mean(torch.stack([self._window[name] for name in sorted(self._window)])).cpu()
        return dict(zip(sorted(self._window), means, strict=True))

    def _end_window(self, step: int, lr: float) -> None:
        window = {name: float(value) for name, value in self._of_all().items()}
        good, bad = window.pop("steps"), window.pop("skipped")
        means = {name: value / good for name, value in window.items()} if good else {}
        self.last, self._window = means or self.last, {}
        clock, self._clock = self._clock, Clock()
        seconds = max(clock.seconds, 1e-9)
        timings = {
            "images_per_second": clock.steps * self._batch / seconds,
            "data_wait": self._across.most(clock.waited / seconds),
            "memory_mb": memory_mb(),
        }
        self._write(step, {**means, "skipped": int(bad), "lr": lr, **timings})
        if self._streak >= BAD_STEPS_IN_A_ROW:
            raise SurgdinoError(
                f"{int(self._streak)} steps in a row without a finite gradient; what was saved before stands",
                file=self.file.parent,
                place=f"stage {self._stage}, step {step}",
                fix="lower train.lr or set hardware.precision=fp32, and run the same command again",
            )

    def _write(self, step: int, values: Mapping[str, object]) -> None:
        if self._across.rank == 0:
            append_line(self.file, {"stage": self._stage, "step": step, **values})
