"""`surgdino share RUN out=FOLDER`: what of a run may leave the house, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from surgdino import console
from surgdino.config import Location, from_words
from surgdino.errors import SurgdinoError
from surgdino.exit_code import ExitCode
from surgdino.runs.share import share_run
from surgdino.verbs.report import report_run

USAGE = "surgdino share RUN out=FOLDER"
HELP = f"""{USAGE}

Copies backbone, head, results, report and metrics of a run folder into FOLDER, and says what it leaves out and why.
Refuses where the name of an operation, of the user or of the machine, or a path, is found in any of it."""


@dataclass(frozen=True)
class ShareWords:
    """The settings of the command."""

    out: Location | None = None


def main(words: Sequence[str]) -> ExitCode:
    """Write the folder; 0."""
    folders, settings = from_words(ShareWords, words, USAGE)
    if len(folders) != 1 or settings.out is None:
        raise SurgdinoError("share which run, and where to?", expected="a run folder and out=", fix=f"use {USAGE}")
    run = Path(folders[0])
    left_out = share_run(run, settings.out, report_run)
    for name, why in left_out.items():
        console.say(f"left out {name}: {why}")
    console.field("shared", settings.out)
    return ExitCode(0, settings.out, left_out)
