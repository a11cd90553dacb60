"""What a stage says of its training, in `metrics.jsonl` and on the progress bar."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor

from surgdino.engine.log import NAME, Window, append_line, keep_lines
from surgdino.engine.logger import RunLog
from surgdino.engine.optim import Update
from surgdino.engine.processes import ProcessGroup

Pause = Literal["validation", "save"]


class StageLog:
    """Writes a line when a window of steps ends.

    A line is a JSON object with `stage`, `step`, and either the window since the line before it (`loss` and the stage's
    other terms, `gradient_norm`, `lr`, `skipped`, `images_per_second`, `data_wait`, `memory_mb`; `validation_wait` and
    `save_wait`, for which the loop stopped since the line before, as shares of all time) or a validation (`val_*`,
    `best`).

    Attributes:
        last: the terms of the last window.
    """

    def __init__(
        self,
        folder: Path,
        stage: str,
        *,
        every: int,
        last_step: int,
        batch: int,
        processes: ProcessGroup,
        log: RunLog | None = None,
    ) -> None:
        """Args:
        folder: of the run.
        every: steps to a window; the first and the last step end one too.
        batch: samples a step.
        log: who gets its numbers too.
        """
        self.file = folder / NAME
        self.last: dict[str, float] = {}
        self._stage, self._processes, self._log, self._step = stage, processes, log or RunLog(()), 0
        self._window = Window(
            every=every, last_step=last_step, images=batch, processes=processes, stops=get_args(Pause)
        )
        self.images_per_second = self._window.images_per_second
        self.state_dict = self._window.state_dict

    def load_state_dict(self, state: Mapping[str, Any], step: int, device: torch.device) -> None:
        """Take over at `step`; lines of this stage's later steps go, since they will be done again."""
        self._window.load_state_dict(state, device)
        self._step = step
        if self._processes.rank == 0:
            keep_lines(self.file, lambda row: row.get("stage") != self._stage or row["step"] <= step)

    def __enter__(self) -> Self:
        """Open the loggers, in the main process."""
        if self._processes.rank == 0:
            self._log.open(self.file.parent, stage=self._stage, resumed_from=self._step)
        return self

    def __exit__(self, *failure: object) -> None:
        self._log.close()

    def record(self, step: int, terms: Mapping[str, Tensor], update: Update, lr: float, times: tuple[float, float]):
        """Add a step, and write the window's line where it ends.

        Args:
            times: seconds that the step took, and of them those spent waiting for its batch.

        Raises:
            SurgdinoError: 10 steps in a row had no finite gradient.
        """
        if self._window.add(step, terms, update, *times):
            line = self._window.close()
            self.last = line.means or self.last
            self._write(step, {**line.means, "skipped": line.skipped, "lr": lr, **line.timings})
            self._window.check(self.file.parent, f"stage {self._stage}, step {step}")

    @contextmanager
    def stopped(self, why: Pause) -> Iterator[None]:
        """Around what stops the loop between two steps."""
        began = time.perf_counter()
        yield
        self._window.stop(why, time.perf_counter() - began)

    def validated(self, step: int, numbers: Mapping[str, float], best: bool) -> None:
        """Write down a validation."""
        self._write(step, {**{f"val_{name}": value for name, value in numbers.items()}, "best": best})

    def _write(self, step: int, values: Mapping[str, object]) -> None:
        if self._processes.rank == 0:
            append_line(self.file, {"stage": self._stage, "step": step, **values})
            self._log.write(step, values)
