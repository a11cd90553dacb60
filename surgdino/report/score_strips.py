"""The highest of many scores as strips in time: which triplets a video shows, and when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from surgdino.paths import atomic_write
from surgdino.report.colours import ALARM, INK, SOFT
from surgdino.report.timeline import WIDTH, draw_title, mark_times, shown_spans

_LEFT, _RIGHT, _STRIP = 3.6, 0.7, 0.24  # inches
_ABOVE, _BELOW = 0.95, 0.55
_MOST_COLUMNS = 2400  # more than the picture has pixels


@dataclass(frozen=True)
class ScoreStrips:
    """What is drawn of one video of n frames.

    Attributes:
        video: its id, the picture's title.
        times: float64 [n], ascending seconds.
        classes: C names.
        scores: float [n, C] in [0, 1].
        truth: 0/1 [n, C]; None where nothing is known. A row with -1 is unlabelled.
        caption: a line under the title.
        rows: how many classes are shown: those with the highest mean over their best tenth of the frames.
    """

    video: str
    times: np.ndarray
    classes: Sequence[str]
    scores: np.ndarray
    truth: np.ndarray | None = None
    caption: str = ""
    rows: int = 20

    def top(self) -> np.ndarray:
        """int64 [rows], the classes shown, the highest first."""
        best = np.sort(self.scores, 0)[-max(1, len(self.scores) // 10) :].mean(0)
        return np.argsort(-best, kind="stable")[: self.rows]


def draw_score_strips(strips: ScoreStrips, target: Path) -> Path:
    """Draw into a PNG: a strip a class, darker where its score is higher, with a red line under it where it is true."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    top = strips.top()
    height = _ABOVE + _STRIP * len(top) + _BELOW
    left, width = _LEFT / WIDTH, (WIDTH - _LEFT - _RIGHT) / WIDTH
    figure = Figure(figsize=(WIDTH, height), dpi=150, facecolor="white")
    axis = figure.add_axes((left, _BELOW / height, width, _STRIP * len(top) / height))
    start, end = shown_spans(strips.times)
    first, last = float(start[0]), float(end[-1])
    shown = sampled(strips.scores[:, top], start, end)
    # One scale for all strips, from nothing to the highest score in the video.
    axis.imshow(
        np.ma.masked_invalid(shown.T),
        aspect="auto",
        extent=(first, last, len(top), 0),
        cmap="GnBu",
        vmin=0,
        vmax=max(float(np.nanmax(shown)), 1e-6),
        interpolation="nearest",
    )
    if strips.truth is not None:
        _underline(axis, sampled((strips.truth[:, top] > 0).astype(np.float32), start, end), first, last)
    _frame(axis, [strips.classes[k] for k in top], strips.scores[:, top].max(0))
    line = strips.caption + ("; red: the truth" if strips.truth is not None else "")
    draw_title(figure, _LEFT, height, strips.video, line)
    with atomic_write(target) as temporary:
        FigureCanvasAgg(figure).print_png(str(temporary), metadata={"Software": None})
    return target


def sampled(values: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Values [n, C] of frames on an even grid of moments, float [m, C], NaN in gaps.

    A moment has the highest value of the frames that fall into it, so that a short event does not vanish.

    Args:
        start, end: float [n], when each frame begins and ends to be shown.
    """
    duration = end[-1] - start[0]
    columns = int(np.clip(round(duration / np.median(end - start)), 1, _MOST_COLUMNS))
    edges = start[0] + duration * np.arange(columns + 1) / columns
    shown = np.full((columns, values.shape[1]), np.nan, np.float32)
    begin = np.clip(np.searchsorted(edges, start + 1e-6, side="right") - 1, 0, columns - 1)
    stop = np.clip(np.searchsorted(edges, end - 1e-6, side="left"), begin + 1, columns)
    for row, (a, b) in enumerate(zip(begin, stop, strict=True)):
        shown[a:b] = np.fmax(shown[a:b], values[row])
    return shown


def _underline(axis: Any, truth: np.ndarray, first: float, last: float) -> None:
    columns, width = len(truth), (last - first) / len(truth)
    for row in range(truth.shape[1]):
        true = np.concatenate([[0], truth[:, row] > 0, [0]]).astype(np.int8)
        begins, ends = np.flatnonzero(np.diff(true) == 1), np.flatnonzero(np.diff(true) == -1)
        bars = [(first + width * b, width * (e - b)) for b, e in zip(begins, ends, strict=True) if b < columns]
        axis.broken_barh(bars, (row + 0.86, 0.14), facecolors=ALARM, linewidth=0)


def _frame(axis: Any, names: Sequence[str], highest: np.ndarray) -> None:
    axis.set_facecolor("#f1f3f5")
    axis.set_yticks(np.arange(len(names)) + 0.5, [name.replace(",", "  ").replace("_", " ") for name in names])
    axis.tick_params(labelsize=8.5, colors=INK, length=0)
    axis.tick_params(axis="x", colors=SOFT, length=3)
    mark_times(axis)
    style: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "fontsize": 8, "color": SOFT}
    axis.annotate("highest", (1.008, -0.15), **style)
    for row, value in enumerate(highest):
        axis.annotate(f"{value:.2f}", (1.008, row + 0.5), **style, va="center")
    axis.hlines(np.arange(1, len(names)), *axis.get_xlim(), color="white", linewidth=1)
    for side in axis.spines.values():
        side.set_visible(False)
