"""`surgdino report RUN`: what a run did, as one HTML file that opens anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from surgdino.errors import SurgdinoError
from surgdino.inputs.words import settings_of

USAGE = "surgdino report RUN [report.frames=true] [out=RUN/report.html]"


def main(words: Sequence[str]) -> int:
    """Write the report of the run folder that `words` names."""
    if any(word in ("-h", "--help") for word in words):
        print(
            f"{USAGE}\n\nWrites one self-contained HTML file: the verdict, before and after, curves, data, operations "
            "seen, settings.\nreport.frames=true adds pictures made of patient frames: keep that file with the data."
        )
        return 0
    folders, settings = settings_of(words, {"report.frames": "false", "out": ""}, USAGE)
    if len(folders) != 1:
        raise SurgdinoError("report of which run?", expected="one run folder", found=len(folders), fix=f"use {USAGE}")
    from rich.console import Console

    folder = Path(folders[0])
    target = Path(settings["out"]) if settings["out"] else folder / "report.html"
    written = report_run(folder, target, frames=as_bool(settings["report.frames"]))
    Console().print(f"[bold]report[/bold]  {written}", soft_wrap=True, highlight=False)
    return 0


def report_run(folder: Path, target: Path, *, frames: bool = False) -> Path:
    """Write the page of a run folder.

    Args:
        frames: whether pictures made of patient frames may be in it.

    Raises:
        SurgdinoError: not a run folder; with `frames`, a store or weights that are not there.
    """
    from surgdino.report.page import write_page
    from surgdino.report.record import read_run

    record = read_run(folder)
    learned = None
    if frames:
        from surgdino.verbs.report_frames import learned_of

        learned = learned_of(record)
    return write_page([record], target, learned=learned)


def as_bool(text: str) -> bool:
    """`true` or `false`.

    Raises:
        SurgdinoError: anything else.
    """
    if text.lower() not in ("true", "false"):
        raise SurgdinoError("report.frames is neither true nor false", expected="true or false", found=text)
    return text.lower() == "true"
