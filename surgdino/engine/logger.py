"""`log.to=[...]`: programs that draw the curves of a run while it trains.

What they are given are numbers and settings, no more: no names of operations, no paths, no command, no machine.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from surgdino import console, discovery

PACKAGE = "surgdino.engine.loggers"


@dataclass(frozen=True)
class LoggedRun:
    """What a logger knows of a run.

    Attributes:
        folder: of the logger's own in the run folder; what it needs to continue lies there.
        project, name: what the run is called, and what it belongs to.
        settings: dotted key -> number, boolean, text or None.
        stage: of a fine-tuning, what is trained in it; empty in pretraining.
        resumed_from: the step after which lines come; those of later steps that came before are done again.
    """

    folder: Path
    project: str
    name: str
    settings: Mapping[str, Any]
    stage: str = ""
    resumed_from: int = 0

    def named(self, key: str) -> str:
        """A number's name among those of all stages."""
        return f"{self.stage}/{key}" if self.stage else key

    def kept(self, file: str, make: Any) -> tuple[str, bool]:
        """The text in a file of the folder, and whether it was there before: what identifies the run to its program."""
        path = self.folder / file
        if path.is_file():
            return path.read_text(encoding="utf-8").strip(), True
        text = str(make())
        self.folder.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")
        return text, False


class Logger(ABC):
    """A program that takes numbers. It may fail: that costs its curves, not the run.

    Attributes:
        NEEDS: packages beside ours, which `pip install 'surgdino[NAME]'` brings.
    """

    NEEDS: tuple[str, ...] = ()

    @abstractmethod
    def open(self, run: LoggedRun) -> None:
        """Begin, or continue what lies in the folder."""

    @abstractmethod
    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Take the numbers of a step."""

    @abstractmethod
    def close(self) -> None:
        """Write what is still held."""


def open_logger(name: str) -> Logger:
    """The logger of this name, not yet opened.

    Raises:
        SurgdinoError: there is none, or a package that it needs is not installed.
    """
    logger: Logger = discovery.defined(discovery.load(PACKAGE, name, "log.to"), Logger)()  # type: ignore[type-abstract]
    discovery.require_packages(logger.NEEDS, f"log.to={name}", name, "leave it out of log.to")
    return logger


@dataclass
class RunLog:
    """The loggers of a run, of its main process.

    Attributes:
        names: which.
        project, name, settings: as in `LoggedRun`.
    """

    names: Sequence[str] = ("tensorboard",)
    project: str = "surgdino"
    name: str = "run"
    settings: Mapping[str, Any] = field(default_factory=dict)
    _opened: dict[str, Logger] = field(default_factory=dict)

    def open(self, folder: Path, *, stage: str = "", resumed_from: int = 0) -> None:
        """Open all of them, for the run in this folder."""
        for name in self.names:
            run = LoggedRun(folder / name, self.project, self.name, self.settings, stage, resumed_from)
            logger = open_logger(name)
            self._opened[name] = logger
            self._tried(name, logger.open, run)

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Hand the numbers of a line to all."""
        numbers = {
            key: float(value)
            for key, value in values.items()
            if key not in ("step", "stage") and isinstance(value, int | float)
        }
        if numbers:
            for name, logger in list(self._opened.items()):
                self._tried(name, logger.write, step, numbers)

    def close(self) -> None:
        """Close all."""
        for name, logger in list(self._opened.items()):
            self._tried(name, logger.close)
        self._opened.clear()

    def _tried(self, name: str, call: Any, *arguments: Any) -> None:
        try:
            call(*arguments)
        except Exception as error:  # costs the curves there; metrics.jsonl has all of them
            self._opened.pop(name, None)
            first = (str(error).splitlines() or [""])[0]
            console.warn(f"log.to={name} is left out from here on: {type(error).__name__}: {first}")
