"""`surgdino compare RUN_A RUN_B`: two runs side by side, in the report's form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from surgdino import console
from surgdino.config import Location, from_words
from surgdino.errors import SurgdinoError
from surgdino.exit_code import ExitCode
from surgdino.report.evidence import compared
from surgdino.report.page import write_page
from surgdino.report.record import read_run

USAGE = "surgdino compare RUN_A RUN_B [out=compare.html]"
HELP = f"{USAGE}\n\nWrites one HTML file: differences with intervals, overlaid curves, settings that differ."


@dataclass(frozen=True)
class CompareWords:
    """The settings of the command."""

    out: Location = Path("compare.html")


def main(words: Sequence[str]) -> ExitCode:
    """Write the page, and say which run is better on the operations that both were measured on."""
    folders, settings = from_words(CompareWords, words, USAGE)
    if len(folders) != 2:
        raise SurgdinoError("compare what?", expected="two run folders", found=len(folders), fix=f"use {USAGE}")
    first, second = (read_run(Path(folder)) for folder in folders)
    verdict = compared(first, second)[1]
    console.say(verdict)
    page = write_page([first, second], settings.out)
    console.field("report", page)
    return ExitCode(0, None, verdict, report=page)
