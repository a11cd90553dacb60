"""How long a video shows each of its classes, as `predict` prints it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from surgdino import console
from surgdino.wording import duration


def durations(times: np.ndarray, present: np.ndarray) -> list[tuple[int, float, int, float]]:
    """(class, seconds, stretches, when it is first there) of every class that is there, the earliest first.

    A frame stands for the time up to the next one, the last for as long as most.

    Args:
        times: float [n], seconds, ascending.
        present: bool [n, C].
    """
    gaps = np.diff(times)
    lengths = np.append(gaps, np.median(gaps) if len(gaps) else 0.0)
    begins = present & ~np.vstack([np.zeros_like(present[:1]), present[:-1]])
    rows = [
        (place, float(lengths[there].sum()), int(begins[:, place].sum()), float(times[there.argmax()]))
        for place, there in enumerate(present.T)
        if there.any()
    ]
    return sorted(rows, key=lambda row: row[3])


def print_durations(what: str, times: np.ndarray, present: np.ndarray, classes: Sequence[str]) -> None:
    """A small table: how long, what share of the video, in how many stretches and from when on each class is there.

    Args:
        what: a class is, such as `phase`.
    """
    if len(times) < 2:
        return
    total = float(times[-1] - times[0] + np.median(np.diff(times)))
    found = durations(times, present)
    rows = [
        (classes[place], duration(seconds), f"{100 * seconds / total:.1f}", f"{stretches:,}", duration(first))
        for place, seconds, stretches, first in found
    ]
    never = [name for place, name in enumerate(classes) if not present[:, place].any()]
    caption = f"{duration(total)} in all; shares in %" + (f"; never: {', '.join(never)}" if never else "")
    console.grid(f"By {what}", (what, "time", "share", "stretches", "first at"), rows, caption=caption)
