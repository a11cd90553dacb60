"""One hostile input: how it is made, what is run on it, what is right. It runs in a process of its own, with limits."""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from surgdino.errors import SurgdinoError

MEMORY = 2500  # MB of resident memory above what the campaign itself holds
SECONDS = 60.0
HEALTHY = 4  # operations beside the odd one


@dataclass(frozen=True)
class Outcome:
    """How it ended: exit status (negative: a signal; None: the time was over), all that it printed, its peak in MB."""

    status: int | None
    text: str
    peak: int
    seconds: float
    folder: Path

    def errors(self) -> list[str]:
        return [line for line in self.text.splitlines() if line.startswith("surgdino: ")]


# What is right: None where it is, else why not.
Verdict = Callable[[Outcome], str | None]


@dataclass(frozen=True)
class Case:
    """One input.

    Attributes:
        kind, name: its class, and its name in that class.
        make: writes it into an empty folder, or into a copy of `base`.
        run: the words of a surgdino command, or a function of the folder; both with that folder as current one.
        right: what the outcome must be.
        base: the sound run that is copied first: "pretrained", "phase", "masks"; None for an empty folder.
        sound: whether the input is a healthy one, which must not be refused.
    """

    kind: str
    name: str
    make: Callable[[Path], object]
    run: Sequence[str] | Callable[[Path], object]
    right: Verdict
    base: str | None = None
    sound: bool = field(default=False)

    def __str__(self) -> str:
        return f"{self.kind}: {self.name}"


def refused(*words: str) -> Verdict:
    """One line of error that holds each of `words` (regular expressions, any case)."""

    def judge(outcome: Outcome) -> str | None:
        if outcome.status not in (1, 2):
            return f"exit status {outcome.status}, expected a refusal"
        if len(outcome.errors()) != 1:
            return f"{len(outcome.errors())} lines of error, expected one"
        return _lacks(outcome.errors()[0], words)

    return judge


def shows(*words: str, status: Sequence[int] = (0, 1)) -> Verdict:
    """It ends with one of `status` and prints each of `words`."""

    def judge(outcome: Outcome) -> str | None:
        if outcome.status not in status:
            return f"exit status {outcome.status}, expected {' or '.join(map(str, status))}"
        return _lacks(outcome.text, words)

    return judge


def done(*words: str) -> Verdict:
    """It succeeds and prints each of `words`."""
    return shows(*words, status=(0,))


def either(*verdicts: Verdict) -> Verdict:
    """Any of several outcomes is right."""

    def judge(outcome: Outcome) -> str | None:
        faults = [verdict(outcome) for verdict in verdicts]
        return None if None in faults else "; or ".join(str(fault) for fault in faults)

    return judge


def aside(name: str) -> Verdict:
    """The odd input is set aside by its name, and training went on with the healthy ones."""
    return done(f"set aside.*{name}", rf"\bof ({HEALTHY}|{HEALTHY + 1}) videos")


def used_or_aside(name: str) -> Verdict:
    """All were used, or the odd one is set aside by its name; the healthy ones are never lost."""
    return either(used(), aside(name))


def used() -> Verdict:
    """The odd input is used with the healthy ones."""
    return done(rf"\bof {HEALTHY + 1} videos")


def refused_or_done(*words: str) -> Verdict:
    """A refusal that holds each of `words`, or success (mended, rebuilt, left out)."""
    return either(done(), refused(*words))


def _lacks(text: str, words: Sequence[str]) -> str | None:
    missing = [word for word in words if not re.search(word, text, re.IGNORECASE)]
    return f"does not say {missing[0]!r}" if missing else None


def judge(case: Case, outcome: Outcome) -> str | None:
    """Why an outcome is not right; None where it is."""
    if outcome.status is None:
        return f"hangs: not ended after {SECONDS:g} s"
    if outcome.status < 0:
        return f"died of signal {signal.Signals(-outcome.status).name}"
    if outcome.status == 70 or re.search("Traceback|unexpected error", outcome.text):
        return "a raw exception"
    if outcome.peak > MEMORY:
        return f"took {outcome.peak} MB"
    strays = [entry.name for entry in outcome.folder.parent.iterdir() if entry.name not in ("work", "home", "said")]
    if strays:
        return f"wrote outside its folder: {strays[0]}"
    if (outcome.folder / "EXECUTED").exists():
        return "code of the input was executed"
    return case.right(outcome)


def run(case: Case, place: Path, bases: Path) -> Outcome:
    """Make the input in a new folder `place` and run it in a child process.

    Raises:
        RuntimeError: the input itself could not be made.
    """
    folder = place / "work"
    (place / "home").mkdir(parents=True)
    if case.base:
        shutil.copytree(bases / case.base, folder, symlinks=True)
    else:
        folder.mkdir()
    case.make(folder)
    begun = time.monotonic()
    child = os.fork()
    if not child:
        _child(case, folder)
    status, peak = _wait(child, begun + SECONDS)
    text = (place / "said").read_text(errors="backslashreplace")
    return Outcome(status, text, peak, time.monotonic() - begun, folder)


def _child(case: Case, folder: Path) -> None:
    try:
        os.setsid()
        said = os.open(folder.parent / "said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(said, 1)
        os.dup2(said, 2)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        os.environ.update(HOME=str(folder.parent / "home"), COLUMNS="220", NO_COLOR="1")
        os.chdir(folder)
        # Address space: what is claimed counts, not only what is used, so that a bomb ends soon.
        resource.setrlimit(resource.RLIMIT_AS, (12_000 << 20,) * 2)
        status = _call(case, folder)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(70)


def _call(case: Case, folder: Path) -> int:
    from surgdino.cli.main import main
    from surgdino.verbs import finetune, pretrain

    # The pictures of a run take two thirds of its time here and show nothing that the cases are about.
    finetune.try_report = pretrain.try_report = lambda *_, **__: None
    pretrain.draw_curves = lambda *_, **__: None
    if not callable(case.run):
        return main(list(case.run))
    try:
        case.run(folder)
    except SurgdinoError as error:
        print(f"surgdino: {error.line()}", file=sys.stderr)
        return 2
    return 0


def _wait(child: int, until: float) -> tuple[int | None, int]:
    """Exit status and peak in MB of a child, which is killed with all of its children when the time is over."""
    late = False
    while True:
        pid, status, used = os.wait4(child, os.WNOHANG)
        if pid:
            break
        if time.monotonic() > until and not late:
            late = True
            os.killpg(child, signal.SIGKILL)
        time.sleep(0.02)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # what it left running
    return (None if late else os.waitstatus_to_exitcode(status)), used.ru_maxrss >> 10
