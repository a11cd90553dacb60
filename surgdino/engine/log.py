"""The log of a training: windows of steps, and `metrics.jsonl` with one line of JSON for each."""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from surgdino.engine.optim import Update
from surgdino.engine.processes import ProcessGroup
from surgdino.errors import SurgdinoError, from_os_error
from surgdino.paths import read_bytes, write_text

NAME = "metrics.jsonl"
_LARGEST = 1 << 30  # bytes; a line is some 500, and there are fewer lines than steps
_MOST = 1e300  # of numbers; leaves room to compute with them
BAD_STEPS_IN_A_ROW = 10
_STREAK = "streak"


@dataclass
class Clock:
    """Steps, the seconds they took, and those of them in which the loop had no batch."""

    steps: int = 0
    seconds: float = 0.0
    waited: float = 0.0

    def add(self, seconds: float, waited: float) -> None:
        """Count one step."""
        self.steps, self.seconds, self.waited = self.steps + 1, self.seconds + seconds, self.waited + waited


@dataclass(frozen=True)
class Line:
    """The numbers of a closed window.

    Attributes:
        means: of the terms and `gradient_norm`, over the steps that counted; empty where none did.
        skipped: steps that did not count.
        features: [n, D] of its last step, over all processes, on the host; empty where none were given.
        timings: `images_per_second` of the steps, `data_wait` as a share of their time, `memory_mb` of this process
            at its peak; for what the loop stopped between steps, `..._wait` as shares of all time.
    """

    means: dict[str, float]
    skipped: int
    features: Tensor
    timings: dict[str, float]


class Window:
    """The terms of the steps since the last line, summed on the device and read back only when a line is due.

    Sums are float64, in which a sum of some thousand float32 numbers is exact: it depends on no order, so a window that
    a stop cut in two, or that several processes share, has the mean that it would have had.
    """

    def __init__(
        self, *, every: int, last_step: int, images: int, processes: ProcessGroup, stops: Iterable[str] = ()
    ) -> None:
        """Args:
        every: steps to a window; the first and the last step end one too.
        images: per step, over all processes.
        processes: the processes of the run, which meet where a line is due.
        stops: what else the loop stops for, between steps.
        """
        self.every, self._last_step, self._images = every, last_step, images
        self._processes = processes
        self._sums: dict[str, Tensor] = {}  # `streak` among them: bad steps in a row until now
        self._streak = 0.0  # where the last line was written
        self._clock, self.overall = Clock(), Clock()
        self._stops = dict.fromkeys(stops, 0.0)  # seconds since the last line
        self.stopped = dict(self._stops)  # and of this call

    def state_dict(self) -> dict[str, Any]:
        """The open window, the same in every process; without its timings."""
        sums, _ = self._of_all()
        return {"streak": float(sums.pop(_STREAK, self._streak)), "window": sums}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Go on with a saved window."""
        self._streak = state.get("streak", 0.0)
        self._sums = {name: value.to(device, torch.float64) for name, value in state["window"].items()}
        if self._sums:
            self._sums[_STREAK] = torch.tensor(self._streak, dtype=torch.float64, device=device)

    def add(self, step: int, terms: Mapping[str, Tensor], update: Update, seconds: float, waited: float) -> bool:
        """Add a step; True where it ends the window.

        A step whose gradient was not finite changed nothing: its terms do not enter the means. Steps that only found
        the loss scale of fp16 too large belong to its search, and are not counted as lost.

        Args:
            seconds, waited: that the step took, and of them those spent waiting for its batch.
        """
        counts = 1.0 - update.skipped
        scale = {} if update.loss_scale is None else {"loss_scale": update.loss_scale}
        for name, value in {**terms, "gradient_norm": update.gradient_norm, **scale}.items():
            self._sum(name, torch.where(counts.bool(), value.detach().float(), 0.0))
        self._sum("steps", counts)
        self._sum("skipped", update.bad)
        self._sums[_STREAK] = (self._sums.get(_STREAK, self._streak) + update.bad.double()) * update.bad
        for clock in (self._clock, self.overall):
            clock.add(seconds, waited)
        return step == 1 or step == self._last_step or step % self.every == 0

    def stop(self, why: str, seconds: float) -> None:
        """Count time between two steps."""
        self._stops[why] += seconds
        self.stopped[why] += seconds

    def close(self, features: Tensor | None = None) -> Line:
        """The numbers of the window; a new one begins. For all processes to call.

        Args:
            features: [n, D] of this process's last step, which come along: the host waits for the device here anyway.
        """
        found, features = self._of_all(features)
        sums = {name: float(value) for name, value in found.items()}
        clock, self._clock, self._sums = self._clock, Clock(), {}
        good, skipped, self._streak = sums.pop("steps"), sums.pop("skipped"), sums.pop(_STREAK)
        seconds = max(clock.seconds, 1e-9)
        timings = {
            "images_per_second": clock.steps * self._images / seconds,
            "data_wait": self._processes.max(clock.waited / seconds),  # the process that waits delays all others
            "memory_mb": memory_mb(),
        }
        whole = seconds + sum(self._stops.values())
        timings |= {f"{why}_wait": stopped / whole for why, stopped in self._stops.items()}
        self._stops = dict.fromkeys(self._stops, 0.0)
        means = {name: value / good for name, value in sums.items()} if good else {}
        return Line(means, int(skipped), features, timings)

    def check(self, folder: Path, place: str) -> None:
        """Raise where the last 10 steps or more before the line had no finite gradient."""
        if self._streak >= BAD_STEPS_IN_A_ROW:
            raise SurgdinoError(
                f"{int(self._streak)} steps in a row without a finite gradient; the last checkpoint stands",
                file=folder,
                place=place,
                fix="lower train.lr or set hardware.precision=fp32, and run the same command again",
            )

    def images_per_second(self) -> float:
        """Over all time of this call: waiting for data, measuring and saving included."""
        return self.overall.steps * self._images / max(self.seconds, 1e-9)

    @property
    def seconds(self) -> float:
        """All time of this call: of the steps and between them."""
        return self.overall.seconds + sum(self.stopped.values())

    def _sum(self, name: str, value: Tensor) -> None:
        self._sums[name] = self._sums.get(name, 0.0) + value.double()

    def _of_all(self, features: Tensor | None = None) -> tuple[dict[str, Tensor], Tensor]:
        """Means of the sums over processes, and the features of all, on the host: one exchange each and one copy."""
        if not self._sums:
            return {}, torch.empty(0, 0)
        names = sorted(self._sums)
        means = self._processes.mean(torch.stack([self._sums[name] for name in names]))
        features = means.new_empty(1, 0, 0) if features is None else self._processes.gather_views(features[None])
        fetched = torch.cat([means, features.double().flatten()]).cpu()  # every float type fits exactly into float64
        return dict(zip(names, fetched, strict=False)), fetched[len(names) :].view(features.shape[1:])


def summary(last: Mapping[str, float], images_per_second: float) -> str:
    """For the progress bar: the loss of the last window, and images a second."""
    loss = f"loss {last['loss']:.3f} · " if "loss" in last else ""
    return f"{loss}{images_per_second:.1f} images/s"


def memory_mb() -> float:
    """Peak so far: of the GPU where there is one, else of this process."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def append_line(file: Path, values: Mapping[str, Any]) -> None:
    """Append one line; numbers that are not finite become `null`, which JSON has."""
    finite = {k: None if isinstance(v, float) and v - v != 0 else v for k, v in values.items()}
    try:
        with file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(finite) + "\n")
    except OSError as error:
        raise from_os_error(error, file) from error


def keep_lines(file: Path, wanted: Callable[[Mapping[str, Any]], bool]) -> None:
    """Drop the lines that are not wanted (of steps that a resumed run does again), and the torn last one of a kill."""
    if not file.exists():
        return
    lines = [line for line in _lines(file) if (row := _row(line)) and wanted(row)]
    write_text(file, "".join(f"{line}\n" for line in lines))


def rows_of(file: Path) -> tuple[list[dict[str, Any]], str | None]:
    """The rows of a metrics.jsonl in order, without values of a kind that no row has; and a sentence on lines that are
    no rows, or None. The torn last line of a kill is left out without a word."""
    lines = _lines(file) if os.path.lexists(file) else []
    rows = [_row(line) for line in lines]
    odd = [place for place, row in enumerate(rows, 1) if row is None and place < len(rows)]
    said = f"{file}, line {odd[0]}: {len(odd)} of {len(rows)} lines are no records of a step" if odd else None
    return [{key: value for key, value in row.items() if _fits(key, value)} for row in rows if row is not None], said


def _lines(file: Path) -> list[str]:
    return read_bytes(file, _LARGEST).decode("utf-8", "replace").splitlines()


def _row(line: str) -> dict[str, Any] | None:
    """A step and what was measured at it; None for anything else."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or not _number(row.get("step")):
        return None
    return row


def _fits(key: str, value: Any) -> bool:
    """`warning` and `stage` are texts, `..._per_operation` measure -> operation -> number, all else numbers or null."""
    if key in ("warning", "stage"):
        return isinstance(value, str)
    if key.endswith("per_operation"):
        return isinstance(value, dict) and all(isinstance(each, dict) for each in value.values())
    return key.isprintable() and (value is None or _number(value))


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) < _MOST
