"""Hostile, broken and unusual inputs through the product, each in a process of its own with limits of time and memory.

    OMP_NUM_THREADS=1 python tests/campaigns/hostile_inputs.py                  all of them
    OMP_NUM_THREADS=1 python tests/campaigns/hostile_inputs.py --only clocks    those whose name holds a word
    OMP_NUM_THREADS=1 python tests/campaigns/hostile_inputs.py --every 25       a sample

Right is what the input's file says (tests/campaigns/hostile/): used as it is meant, set aside by name while the others
are used, or refused in one line. Never right: a raw exception, a signal, more than a minute, memory out of proportion,
a file outside the folder, code that ran. docs/security.md has the table of the last full run.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import sys
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.campaigns.hostile import case as one
from tests.campaigns.hostile import making
from tests.campaigns.hostile.case import Case, Outcome

CLASSES = sorted(path.stem for path in Path(one.__file__).parent.glob("*.py"))
CLASSES = [name for name in CLASSES if name not in ("__init__", "case", "making")]


_tried: list[Case] = []  # for the forked workers: a case holds functions, which cannot be sent to them


def all_cases() -> list[Case]:
    return [each for name in CLASSES for each in import_module(f"tests.campaigns.hostile.{name}").cases()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=[], help="words; a case that holds one of them is tried")
    parser.add_argument("--every", type=int, default=1, help="try every n-th case of each kind")
    parser.add_argument("--at-once", type=int, default=2, help="cases tried side by side")
    options = parser.parse_args()
    chosen = [each for each in all_cases() if not options.only or any(word in str(each) for word in options.only)]
    counted: Counter[str] = Counter()
    sample = []
    for each in chosen:
        if counted[each.kind] % options.every == 0:
            sample.append(each)
        counted[each.kind] += 1
    # What every child needs, imported once: children are forked.
    for name in (
        "surgdino.cli.configured",
        "surgdino.verbs.pretrain",
        "surgdino.verbs.finetune",
        "surgdino.verify.verb",
    ):
        import_module(name)
    with tempfile.TemporaryDirectory() as place:
        bases = Path(place) / "bases"
        for name in making.SOUND:
            _sound_run(name, bases / name)
        _tried.extend(sample)
        with ProcessPoolExecutor(options.at_once, multiprocessing.get_context("fork")) as pool:
            came = pool.map(_try, range(len(sample)), [Path(place)] * len(sample), [bases] * len(sample))
            return _table(sample, list(came))


def _sound_run(name: str, place: Path) -> None:
    """Make a sound run in a child, so that this process never starts torch's threads."""
    child = os.fork()
    if not child:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            making.sound_run(name, place)
            os._exit(0)
        except BaseException as error:
            print(f"sound run {name!r}: {error!r}", file=sys.stderr)
            os._exit(1)
    if os.waitpid(child, 0)[1]:
        raise SystemExit("the sound runs could not be made")


def _try(number: int, folder: Path, bases: Path) -> tuple[str, str | None]:
    """What came of a case (used, set aside, refused), and why it fell short; None where it did not."""
    case, place = _tried[number], folder / str(number)
    try:
        outcome = one.run(case, place, bases)
        why = one.judge(case, outcome)
    except Exception as error:
        print(f"broken      {case}: {error!r}", flush=True)
        return "broken", f"the input could not be made: {error!r}"
    finally:
        shutil.rmtree(place, ignore_errors=True)
    if why:
        print(f"fell short  {case}: {why} ({outcome.seconds:.0f} s)\n            {_last(outcome)}", flush=True)
    return _what(outcome), why


def _what(outcome: Outcome) -> str:
    if outcome.errors():
        return "refused"
    return "set aside" if "set aside" in outcome.text or outcome.status == 1 else "used"


def _last(outcome: Outcome) -> str:
    lines = [line for line in outcome.text.splitlines() if line.strip() and "resource_tracker" not in line]
    return (outcome.errors() or lines or ["(nothing printed)"])[-1][:240]


def _table(cases: list[Case], tried: list[tuple[str, str | None]]) -> int:
    kinds = list(dict.fromkeys(case.kind for case in cases))
    columns = ("used", "set aside", "refused")
    print(f"\n| kind | tried | {' | '.join(columns)} | fell short |\n| --- | --- | --- | --- | --- | --- |")
    rows = [(case.kind, what, why) for case, (what, why) in zip(cases, tried, strict=True)]
    for kind in [*kinds, None]:
        of = [row for row in rows if kind in (None, row[0])]
        counts = [sum(row[1] == what and not row[2] for row in of) for what in columns]
        cells = [kind or "**all**", len(of), *counts, sum(bool(row[2]) for row in of)]
        print(f"| {' | '.join(map(str, cells))} |")
    return int(any(row[2] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
