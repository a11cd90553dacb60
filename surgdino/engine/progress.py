"""The progress bar of a run: step, loss, images a second, time to go."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar


class Log(Protocol):
    """What the bar is told of the steps."""

    last: dict[str, float]

    def images_per_second(self) -> float:
        """So far."""


class Progress:
    """A bar where wanted; sentences are printed either way, above the bar, unless this process is silent."""

    def __init__(self, *, drawn: bool, silent: bool = False, title: str = "training") -> None:
        self._console = Console(stderr=True, quiet=silent)
        self._bar = Bar(
            TextColumn(f"[bold]{title}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            TextColumn("to go"),
            TimeRemainingColumn(),
            console=self._console,
            disable=silent or not drawn,
        )
        self._task = self._bar.add_task("", total=None)

    def say(self, sentence: str) -> None:
        """Print a sentence."""
        self._console.print(f"[yellow]![/yellow] {sentence}", highlight=False, soft_wrap=True)

    @contextmanager
    def of(self, step: int, steps: int) -> Iterator[None]:
        """Draw the bar from `step` to `steps`."""
        self._bar.update(self._task, completed=step, total=steps)
        with self._bar:
            yield

    def show(self, step: int, log: Log) -> None:
        """Move the bar, with the loss of the last logged window."""
        loss = log.last.get("loss")
        text = "" if loss is None else f"loss {loss:.3f} · "
        self._bar.update(self._task, completed=step, description=f"{text}{log.images_per_second():.1f} images/s")
