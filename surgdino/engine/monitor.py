"""The monitor: what the run says of itself, in `metrics.jsonl`, in TensorBoard, on the progress bar, and in words."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from surgdino.engine.metrics_file import NAME, append_line, keep_lines
from surgdino.engine.optim import Update
from surgdino.engine.parallel.across import Across
from surgdino.engine.probes.effective_rank import effective_rank
from surgdino.engine.schedules import Rates
from surgdino.errors import SurgdinoError

BAD_STEPS_IN_A_ROW = 10
_STARVED = 0.4


@dataclass
class Clock:
    """Steps, the seconds they took, and those of them in which the loop had no batch."""

    steps: int = 0
    seconds: float = 0.0
    waited: float = 0.0

    def add(self, seconds: float, waited: float) -> None:
        """Count one step."""
        self.steps, self.seconds, self.waited = self.steps + 1, self.seconds + seconds, self.waited + waited


class Monitor:
    """Collects on the device and reads it back only when a line is due.

    A line of `metrics.jsonl` is a JSON object with `step` and one of
    - the window since the line before it: `loss`, the method's terms and `gradient_norm` as means over the steps that
      counted; `skipped` in all; `lr`, `head_lr`, `weight_decay`, `momentum` and `effective_rank` of its last step;
      `images_per_second`, `data_wait` as a share of the time, `memory_mb` of the main process at its peak;
    - a probe: `probe_*`, see `surgdino.engine.measuring`;
    - a `warning`, in words.

    Args:
        every: steps to a window; the first and the last step end one too.
        images: per step.
        collapse: a sentence where a window's terms look like collapse.
        say: prints a sentence.
        across: the processes of the run, which meet where a line is due; the main one writes it.

    Attributes:
        warnings: what was said in words, each once.
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
        say: Callable[[str], None],
        across: Across | None = None,
    ) -> None:
        self.file = folder / NAME
        self._board_folder = folder / "tensorboard"
        self._board: Any = None
        self._every, self._last_step, self._images = every, last_step, images
        self._collapse, self._say = collapse, say
        self._across = across or Across()
        self._resumed_from = 0
        self.warnings: list[str] = []
        self.skipped = 0
        self.first: dict[str, float] = {}
        self.last: dict[str, float] = {}
        self._window: dict[str, Tensor] = {}
        self._streak: Tensor | float = 0.0
        self._clock, self._overall = Clock(), Clock()

    # The state: what a resumed run needs to go on writing as if it had never stopped.

    def state_dict(self) -> dict[str, Any]:
        """What the lines to come depend on; timings excepted."""
        window = {name: value.cpu() for name, value in self._of_all_processes(self._window).items()}
        keys = ("warnings", "skipped", "first", "last")
        return {**{k: getattr(self, k) for k in keys}, "window": window, "streak": float(self._streak)}

    def load_state_dict(self, state: dict[str, Any], step: int, device: torch.device) -> None:
        """Take over at `step`: lines written after it belong to steps that will be done again, and go."""
        for key in ("warnings", "skipped", "first", "last"):
            setattr(self, key, state[key])
        self._window = {name: value.to(device, torch.float64) for name, value in state["window"].items()}
        self._streak = state["streak"]
        self._resumed_from = step
        if self._across.rank == 0:
            keep_lines(self.file, lambda row: row["step"] <= step)

    def __enter__(self) -> Monitor:
        """Open TensorBoard's file."""
        if self._across.rank:
            return self
        from torch.utils.tensorboard import SummaryWriter

        self._board = SummaryWriter(str(self._board_folder), purge_step=self._resumed_from + 1)
        return self

    def __exit__(self, *failure: object) -> None:
        if self._board is not None:
            self._board.close()
        self._board = None

    # The steps.

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around the loop's wait for a batch, with which a step begins."""
        self._step_began = time.perf_counter()
        yield
        self._batch_came = time.perf_counter()

    def record(self, step: int, terms: dict[str, Tensor], update: Update, rates: Rates, features: Tensor) -> None:
        """Add a step to the window, and write the window's line where it ends.

        A skipped step counts, but its terms, which may be anything, do not enter the means.

        Args:
            features: [n, D], class tokens of this step, for their effective rank.

        Raises:
            SurgdinoError: 10 steps in a row had no finite gradient.
        """
        counts = 1.0 - update.skipped
        for name, value in {**terms, "gradient_norm": update.gradient_norm}.items():
            self._add(name, torch.where(counts.bool(), value.float(), 0.0))
        self._add("steps", counts)
        self._add("skipped", update.skipped)
        self._streak = (self._streak + update.skipped) * update.skipped
        for clock in (self._clock, self._overall):
            clock.add(time.perf_counter() - self._step_began, self._batch_came - self._step_began)
        if step == 1 or step == self._last_step or step % self._every == 0:
            self._log(step, rates, features)

    def _add(self, name: str, value: Tensor) -> None:
        """In float64, where a window's sum of float32 numbers is exact: its mean depends on no order, so a window that
        a stop cut in two, or that several processes share, is the one that would have been."""
        self._window[name] = self._window.get(name, 0.0) + value.double()

    def _of_all_processes(self, window: dict[str, Tensor]) -> dict[str, Tensor]:
        """Means over processes, in one exchange."""
        if not window:
            return {}
        means = self._across.mean(torch.stack([torch.as_tensor(window[name]) for name in sorted(window)]))
        return dict(zip(sorted(window), means, strict=True))

    def _log(self, step: int, rates: Rates, features: Tensor) -> None:
        window = {name: float(value) for name, value in self._of_all_processes(self._window).items()}
        self._window = {}
        features = self._across.gather_views(features[None])[0]
        good, bad = window.pop("steps"), window.pop("skipped")
        means = {name: value / good for name, value in window.items()} if good else {}
        self.skipped += int(bad)
        self.first = self.first or means
        self.last = means or self.last
        timings = self._timings()
        line = {
            **means,
            "skipped": self.skipped,
            "lr": rates.backbone_lr,
            "head_lr": rates.head_lr,
            "weight_decay": rates.weight_decay,
            "momentum": rates.momentum,
            "effective_rank": float(effective_rank(features)),
            **timings,
        }
        self.write(step, line)
        self._put_into_words(step, means, int(bad), timings["data_wait"])

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Append one line, and draw its numbers; in the main process."""
        if self._across.rank:
            return
        append_line(self.file, {"step": step, **values})
        for name, value in values.items():
            if self._board is not None and isinstance(value, int | float):
                self._board.add_scalar(name, value, step)

    def warn(self, step: int, sentence: str | None) -> None:
        """Say a sentence, write it down, and do not repeat it."""
        kind = (sentence or "").partition(":")[0]
        if sentence and not any(said.startswith(kind) for said in self.warnings):
            self.warnings.append(sentence)
            self.write(step, {"warning": sentence})
            self._say(f"step {step}: {sentence}")

    def images_per_second(self) -> float:
        """Over this process's steps: waiting for data included, measuring and saving not."""
        return self._overall.steps * self._images / max(self._overall.seconds, 1e-9)

    def _timings(self) -> dict[str, float]:
        clock, self._clock = self._clock, Clock()
        seconds = max(clock.seconds, 1e-9)
        return {
            "images_per_second": clock.steps * self._images / seconds,
            "data_wait": self._across.most(clock.waited / seconds),  # the one that waits holds all others up
            "memory_mb": memory_mb(),
        }

    def _put_into_words(self, step: int, means: dict[str, float], bad: int, data_wait: float) -> None:
        if means:
            self.warn(step, self._collapse(means))
        if bad:
            self.warn(step, f"gradients that are not finite: {bad} of the last steps were left out and changed nothing")
        if data_wait > _STARVED and self._overall.steps > self._every:
            advice = "raise hardware.loader_workers, or put data.store on a faster disk"
            self.warn(step, f"the loop waits for data: {data_wait:.0%} of the time; {advice}")
        if self._streak >= BAD_STEPS_IN_A_ROW:
            raise SurgdinoError(
                f"{int(self._streak)} steps in a row without a finite gradient; the last checkpoint stands",
                file=self.file.parent,
                place=f"step {step}",
                fix="lower train.lr or set hardware.precision=fp32, and run the same command again",
            )


def memory_mb() -> float:
    """Peak so far: of the GPU where there is one, else of this process."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
