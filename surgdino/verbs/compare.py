"""`surgdino compare RUN_A RUN_B`: two runs side by side, in the report's form."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from surgdino.errors import SurgdinoError
from surgdino.inputs.words import settings_of

USAGE = "surgdino compare RUN_A RUN_B [out=compare.html]"


def main(words: Sequence[str]) -> int:
    """Write the page, and say which of the two is better on the operations that both were measured on."""
    if any(word in ("-h", "--help") for word in words):
        print(f"{USAGE}\n\nWrites one HTML file: differences with intervals, curves over each other, other settings.")
        return 0
    folders, settings = settings_of(words, {"out": "compare.html"}, USAGE)
    if len(folders) != 2:
        raise SurgdinoError("compare what?", expected="two run folders", found=len(folders), fix=f"use {USAGE}")
    from rich.console import Console

    from surgdino.report.evidence import compared
    from surgdino.report.page import write_page
    from surgdino.report.record import read_run

    first, second = (read_run(Path(folder)) for folder in folders)
    console = Console()
    console.print(compared(first, second)[1], highlight=False)
    written = write_page([first, second], Path(settings["out"]))
    console.print(f"[bold]report[/bold]  {written}", soft_wrap=True, highlight=False)
    return 0
