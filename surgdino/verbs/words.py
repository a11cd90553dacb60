"""What the verbs about finished runs take. Imports no torch, so that a slip is answered at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from surgdino.config import Location, from_words
from surgdino.errors import SurgdinoError
from surgdino.inputs.settings import ReportSettings

_WITHOUT_FRAMES = ReportSettings(frames=False)


@dataclass(frozen=True)
class ReportWords:
    """The settings of `surgdino report`."""

    report: ReportSettings = _WITHOUT_FRAMES
    out: Location | None = None


@dataclass(frozen=True)
class ShareWords:
    """The settings of `surgdino share`."""

    out: Location


@dataclass(frozen=True)
class CompareWords:
    """The settings of `surgdino compare`."""

    out: Location = Path("compare.html")


@dataclass(frozen=True)
class RunVerb:
    """A verb about finished runs.

    Attributes:
        usage: as its help gives it.
        about: what it does.
        kind: of its settings.
        runs: how many run folders it takes.
    """

    usage: str
    about: str
    kind: type
    runs: int = 1

    @property
    def help(self) -> str:
        """The text of its --help."""
        return f"{self.usage}\n\n{self.about}"

    def read(self, words: Sequence[str]) -> tuple[list[Path], Any]:
        """The run folders and the settings.

        Raises:
            SurgdinoError: too few or too many folders, one that is no run's, or a setting that it does not take.
        """
        kind: type[Any] = self.kind
        texts, settings = from_words(kind, words, self.usage)
        if len(texts) != self.runs:
            expected = "one run folder" if self.runs == 1 else f"{self.runs} run folders"
            raise SurgdinoError("of which run?", expected=expected, found=len(texts), fix=f"use {self.usage}")
        folders = [Path(text).expanduser() for text in texts]
        for folder in folders:
            if not (folder / "config.yaml").is_file():
                found = "no such folder" if not folder.is_dir() else "no config.yaml"
                what, expected, fix = "not a run folder", "config.yaml and what a run wrote", "give a run.dir"
                raise SurgdinoError(what, file=folder, expected=expected, found=found, fix=fix)
        return folders, settings


RUN_VERBS = {
    "report": RunVerb(
        "surgdino report RUN [report.frames=true] [out=RUN/report.html]",
        "Writes one self-contained HTML file: the verdict, before and after, curves, data, operations seen, settings.\n"
        "report.frames=true adds pictures made of patient frames: keep that file with the data.",
        ReportWords,
    ),
    "share": RunVerb(
        "surgdino share RUN out=FOLDER",
        "Copies backbone, head, results, report and metrics of a run folder into FOLDER, and says what it leaves\n"
        "out and why. Refuses where the name of an operation, of the user or of the machine, or a path is in it.",
        ShareWords,
    ),
    "compare": RunVerb(
        "surgdino compare RUN_A RUN_B [out=compare.html]",
        "Writes one HTML file: differences with intervals, overlaid curves, settings that differ.",
        CompareWords,
        runs=2,
    ),
}
