"""`surgdino compare RUN_A RUN_B`: two runs side by side, in the report's form."""

from __future__ import annotations

from collections.abc import Sequence

from surgdino import console
from surgdino.exit_code import ExitCode
from surgdino.report.page import write_page
from surgdino.report.record import read_run
from surgdino.report.verdict import of_two
from surgdino.verbs.words import RUN_VERBS


def main(words: Sequence[str]) -> ExitCode:
    """Write the page, and say which run is better on the operations that both were measured on."""
    folders, settings = RUN_VERBS["compare"].read(words)
    first, second = map(read_run, folders)
    verdict = of_two(first, second)
    for _, sentence in verdict.lines:
        console.say(sentence)
    page = write_page([first, second], settings.out)
    console.field("report", page)
    return ExitCode(0, None, verdict.sentence, report=page)
