"""`surgdino share RUN out=FOLDER`: what of a run may leave the house, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from surgdino import console
from surgdino.exit_code import ExitCode
from surgdino.runs.share import share_run
from surgdino.verbs.report import report_run
from surgdino.verbs.words import RUN_VERBS


def main(words: Sequence[str]) -> ExitCode:
    """Write the folder; 0."""
    (run,), settings = RUN_VERBS["share"].read(words)
    left_out = share_run(run, settings.out, report_run)
    for name, why in left_out.items():
        console.say(f"left out {name}: {why}")
    console.field("shared", settings.out)
    return ExitCode(0, settings.out, left_out)
