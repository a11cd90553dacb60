"""What every verb gives back in Python."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from surgdino.exit_code import ExitCode


@dataclass(frozen=True)
class Result:
    """What every verb gives back.

    Attributes:
        ok: False where something was found wrong, as exit code 1 says it in the shell.
        folder: of the run, or of what was written; None where there is none.
        written: what it is (`report`, `results`, `curves`, `picture`, ...) -> where it is.
        warnings: the sentences that the command warns of, in their order.
    """

    ok: bool
    folder: Path | None
    written: Mapping[str, Path]
    warnings: tuple[str, ...]

    @property
    def report(self) -> Path | None:
        """The HTML page."""
        return self.written.get("report")

    @classmethod
    def of(cls, ended: ExitCode, warnings: Sequence[str]) -> Self:
        """From how a verb ended, and what it warned of."""
        return cls(not ended, ended.folder, ended.written, tuple(warnings), **cls._more(ended))

    @classmethod
    def _more(cls, ended: ExitCode) -> dict[str, Any]:
        """The values of the subclass's own fields."""
        return {}

    @property
    def _place(self) -> Path:
        assert self.folder is not None
        return self.folder


@dataclass(frozen=True)
class RunResult(Result):
    """What a training gives back; `folder` is its run folder."""

    @property
    def checkpoint(self) -> Path:
        """The folder with what was trained, for other verbs and `surgdino.load`; of several runs each has its own."""
        return self._place / "checkpoint"

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """What was logged on the way: a mapping a line of metrics.jsonl."""
        from surgdino.report.record import read_metrics

        return read_metrics(self._place / "metrics.jsonl")


def number(value: float | None) -> float:
    """NaN where JSON has null."""
    return math.nan if value is None else float(value)
