"""How a verb ends: the shell's exit code, and for those who call it from Python what it wrote and found."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self


class ExitCode(int):
    """0 where all was done, 1 where something was found wrong.

    Attributes:
        folder: of the run or of the results; None where there is none.
        found: what the verb knows beyond its files, in a type of its own.
        written: what it wrote, by a name of one word -> path.
        stopped: whether a signal ended it early, so that the same command goes on.
    """

    stopped: bool
    folder: Path | None
    found: Any
    written: dict[str, Path]

    def __new__(
        cls,
        code: int = 0,
        folder: Path | None = None,
        found: Any = None,
        *,
        stopped: bool = False,
        **written: Path | None,
    ) -> Self:
        """`written` may hold None for what was not written this time."""
        self = super().__new__(cls, code)
        self.folder, self.found, self.stopped = folder, found, stopped
        self.written = {name: path for name, path in written.items() if path is not None}
        return self
