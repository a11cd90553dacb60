"""Video numbers: short lists of them as people write them, and the number in a name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

Entry = int | str  # a video's number, or its id or operation where it has no number

_RANGE = re.compile(r"(\d+)\s*-\s*(\d+)")


def expand(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """`[1, "3-5", "OP 7"]` -> `(1, 3, 4, 5, "OP 7")`; digits in quotes count as numbers."""
    expanded: list[Entry] = []
    for entry in entries:
        text = str(entry).strip()
        span = _RANGE.fullmatch(text)
        if span and int(span[1]) <= int(span[2]):
            expanded.extend(range(int(span[1]), int(span[2]) + 1))
        else:
            expanded.append(int(text) if text.isdecimal() else text)
    return tuple(expanded)


def compact(numbers: Iterable[Entry]) -> str:
    """`[1, 2, 3, 7]` -> `1-3, 7`: a list that stays readable with 80 videos in it."""
    listed = list(numbers)
    ordered = sorted(n for n in listed if isinstance(n, int))
    spans: list[list[int]] = []
    for number in ordered:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    names = [str(n) for n in listed if not isinstance(n, int)]
    return ", ".join([*(str(a) if a == b else f"{a}-{b}" for a, b in spans), *names])


def number_in(name: str) -> int | None:
    """The number that a name ends with (`video07` -> 7), or None where it has none or several."""
    found = re.fullmatch(r"\D*?0*(\d+)", name)
    return int(found[1]) if found else None


def stride(words: str) -> int | None:
    """`every 5th` -> 5; None for anything else."""
    found = re.fullmatch(r"every 0*([1-9]\d*)(?:st|nd|rd|th)", words.strip().lower())
    return int(found[1]) if found else None
