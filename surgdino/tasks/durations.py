"""How long a video shows each of its classes, as `predict` prints it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from surgdino import console
from surgdino.report.timeline import recorded, segments, shown_spans
from surgdino.wording import duration


def durations(times: np.ndarray, present: np.ndarray) -> list[tuple[int, float, int, float]]:
    """(class, seconds, stretches, when it is first there) of every class that is there, the earliest first.

    A frame stands for the time that a timeline shows it: up to the next one, but not over a gap in the recording, where
    a stretch ends.

    Args:
        times: float [n], seconds, ascending.
        present: bool [n, C].
    """
    shown = shown_spans(times)
    found = [(place, segments(np.where(there, 0, -1), *shown)) for place, there in enumerate(present.T)]
    rows = [(place, sum(b - a for _, a, b in runs), len(runs), runs[0][1]) for place, runs in found if runs]
    return sorted(rows, key=lambda row: row[3])


def print_durations(what: str, times: np.ndarray, present: np.ndarray, classes: Sequence[str]) -> None:
    """A small table: how long, what share of the video, in how many stretches and from when on each class is there.

    Args:
        what: a class is, such as `phase`.
    """
    if len(times) < 2:
        return
    start, end = shown_spans(times)
    total = float((end - start).sum())
    found = durations(times, present)
    rows = [
        (classes[place], duration(seconds), f"{100 * seconds / total:.1f}", f"{stretches:,}", duration(first))
        for place, seconds, stretches, first in found
    ]
    never = [name for place, name in enumerate(classes) if not present[:, place].any()]
    caption = f"{recorded(total, float(end[-1] - start[0]), duration)} in all; shares in %" + (
        f"; never: {', '.join(never)}" if never else ""
    )
    console.grid(f"By {what}", (what, "time", "share", "stretches", "first at"), rows, caption=caption)
