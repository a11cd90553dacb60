"""Pictures of one video over time: how long each frame is shown, an axis in minutes and seconds, a title."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from surgdino.report.colours import INK, SOFT

WIDTH = 12.0  # inches
# A frame that follows later than this many usual steps leaves a gap.
_GAP = 3.0


def shown_spans(times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """When each frame begins and ends: until the next one comes, or for a usual step where that is long after."""
    steps = np.diff(times)
    usual = float(np.median(steps)) if len(steps) else 1.0
    ends = np.where(steps > _GAP * usual, times[:-1] + usual, times[1:])
    return times, np.append(ends, times[-1:] + usual)


def segments(labels: np.ndarray, start: np.ndarray, end: np.ndarray) -> list[tuple[int, float, float]]:
    """(label, first second, last second) of every run of equal labels without a gap; negative labels are none.

    Args:
        labels: int [n].
        start, end: float [n], when each frame begins and ends to be shown.
    """
    if not len(labels):
        return []
    breaks = np.flatnonzero((np.diff(labels) != 0) | (start[1:] > end[:-1])) + 1
    firsts, lasts = np.concatenate([[0], breaks]), np.concatenate([breaks - 1, [len(labels) - 1]])
    return [
        (int(labels[first]), float(start[first]), float(end[last]))
        for first, last in zip(firsts, lasts, strict=True)
        if labels[first] >= 0
    ]


def recorded(shown: float, whole: float, spelled: Callable[[float], str]) -> str:
    """How long frames are shown, and how long the gaps between them are, where there are any; both in seconds.

    Args:
        whole: from the first frame to the end of the last.
    """
    gaps = whole - shown
    return spelled(shown) + (f" (and gaps of {spelled(gaps)})" if gaps >= 0.5 else "")


def mark_times(axis: Any) -> None:
    """Ticks of an x axis in seconds whose limits are set: at most a dozen round moments, as `m:ss`."""
    from matplotlib.ticker import FixedLocator, FuncFormatter

    axis.xaxis.set_major_locator(FixedLocator(time_ticks(*axis.get_xlim())))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: clock(seconds)))


def time_ticks(first: float, last: float) -> list[float]:
    """Round moments, in seconds, at most a dozen, for an axis between two others."""
    step = next((s for s in (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800) if (last - first) / s <= 12), 3600)
    return np.arange(np.ceil(first / step) * step, last + 1e-6, step).tolist()


def clock(seconds: float) -> str:
    """`m:ss`, or `h:mm:ss` from an hour on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def draw_title(figure: Any, left: float, height: float, video: str, caption: str) -> None:
    """The video's name and a line under it, `left` inches from the edge of a figure that is `height` inches high."""
    style: dict[str, Any] = {"parse_math": False, "va": "baseline"}
    figure.text(left / WIDTH, 1 - 0.42 / height, video, fontsize=16, weight="bold", color=INK, **style)
    figure.text(left / WIDTH, 1 - 0.68 / height, caption, fontsize=9.5, color=SOFT, **style)
