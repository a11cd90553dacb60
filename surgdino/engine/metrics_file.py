"""`metrics.jsonl`: a line of JSON for everything that a run has to say of itself, appended as it happens."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from surgdino.errors import from_os_error
from surgdino.paths import atomic_write

NAME = "metrics.jsonl"


def append_line(file: Path, values: Mapping[str, Any]) -> None:
    """Append one line; numbers that are not finite become `null`, which JSON has.

    Raises:
        SurgdinoError: the file system refused.
    """
    try:
        with file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({key: _plain(value) for key, value in values.items()}) + "\n")
    except OSError as error:
        raise from_os_error(error, file) from error


def keep_lines(file: Path, wanted: Callable[[Mapping[str, Any]], bool]) -> None:
    """Drop the lines that are not wanted (of steps that a resumed run does again), and the torn last one of a kill."""
    if not file.exists():
        return
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if (row := _row(line)) and wanted(row)]
    with atomic_write(file) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _row(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("step"), int | float) else None


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and value - value != 0 else value
