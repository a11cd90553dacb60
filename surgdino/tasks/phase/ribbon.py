"""The phase ribbon: one video as a coloured band in time, the truth above the prediction, how sure it was below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from surgdino.paths import atomic_write
from surgdino.report.colours import ALARM, GRID, INK, SOFT, class_colours, readable_name
from surgdino.report.timeline import WIDTH, draw_title, mark_times, segments, shown_spans

_LEFT, _RIGHT = 1.25, 0.6  # inches; the margins hold the names of the bands and the scale
_HIGH, _THIN, _CONFIDENCE, _BETWEEN, _ABOVE = 0.5, 0.09, 0.62, 0.09, 0.95
_LEGEND_COLUMNS, _LEGEND_ROW = 4, 0.27


@dataclass(frozen=True)
class Ribbon:
    """What is drawn of one video of n frames.

    Attributes:
        video: its id, the picture's title.
        times: float64 [n], ascending seconds.
        classes: names in the order of their ids; all of them are in the legend.
        prediction: int [n], class ids.
        confidence: float [n], the probability of the class predicted.
        truth: int [n], class ids, -1 where nothing is labelled; None where nothing is known.
        caption: a line under the title, such as which model and run.
    """

    video: str
    times: np.ndarray
    classes: Sequence[str]
    prediction: np.ndarray
    confidence: np.ndarray
    truth: np.ndarray | None = None
    caption: str = ""

    @property
    def accuracy(self) -> float | None:
        """Share of the labelled frames that are right; None where none is labelled."""
        if self.truth is None or not (self.truth >= 0).any():
            return None
        known = self.truth >= 0
        return float((self.truth == self.prediction)[known].mean())


def draw_ribbon(ribbon: Ribbon, target: Path) -> Path:
    """Draw into a PNG or SVG, by the suffix of `target`, whole or not at all.

    Raises:
        SurgdinoError: the file system refused.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    bands = _bands(ribbon)
    rows = -(-len(ribbon.classes) // _LEGEND_COLUMNS)
    heights = [*(_THIN if name == "Wrong" else _HIGH for name, _ in bands), _CONFIDENCE]
    below = 0.62 + _LEGEND_ROW * rows
    height = _ABOVE + sum(heights) + _BETWEEN * len(bands) + below
    figure = Figure(figsize=(WIDTH, height), dpi=150, facecolor="white")
    start, end = shown_spans(ribbon.times)
    axes, top = [], height - _ABOVE
    for band_height in heights:
        size = ((WIDTH - _LEFT - _RIGHT) / WIDTH, band_height / height)
        axes.append(figure.add_axes((_LEFT / WIDTH, (top - band_height) / height, *size)))
        top -= band_height + _BETWEEN
    colours = list(class_colours(ribbon.classes).values())
    for axis, (name, labels) in zip(axes, bands, strict=False):
        _band(axis, name, labels, start, end, [ALARM] if name == "Wrong" else colours)
    _confidence(axes[-1], ribbon.confidence, start, end)
    _time_axis(axes, float(start[0]), float(end[-1]))
    draw_title(figure, _LEFT, height, ribbon.video, ribbon.caption)
    if (accuracy := ribbon.accuracy) is not None:
        place, text = (1 - _RIGHT / WIDTH, 1 - 0.42 / height), f"{100 * accuracy:.1f} % of frames right"
        figure.text(*place, text, fontsize=12, color=INK, ha="right", va="baseline", parse_math=False)
    _legend(figure, ribbon.classes, colours, height, 0.08 + _LEGEND_ROW * rows)
    with atomic_write(target) as temporary, rc_context({"svg.hashsalt": "surgdino"}):  # equal input, equal bytes
        svg = target.suffix.lower() == ".svg"
        FigureCanvasAgg(figure)
        metadata: dict[str, Any] = {"Date": None} if svg else {"Software": None}
        figure.savefig(temporary, format="svg" if svg else "png", metadata=metadata)
    return target


def _bands(ribbon: Ribbon) -> list[tuple[str, np.ndarray]]:
    prediction = ("Prediction", ribbon.prediction)
    if ribbon.truth is None or ribbon.accuracy is None:
        return [prediction]
    wrong = np.where((ribbon.truth >= 0) & (ribbon.truth != ribbon.prediction), 0, -1)
    return [("Truth", ribbon.truth), prediction, ("Wrong", wrong)]


def _band(axis: Any, name: str, labels: np.ndarray, start: np.ndarray, end: np.ndarray, colours: Sequence[str]) -> None:
    runs = segments(labels, start, end)
    axis.broken_barh(
        [(first, last - first) for _, first, last in runs],
        (0, 1),
        facecolors=[colours[label] for label, _, _ in runs],
        linewidth=0,
        antialiased=False,  # or hairlines of the ground would show between neighbours
    )
    axis.set_ylim(0, 1)
    axis.set_facecolor("#f1f3f5" if name != "Wrong" else "white")
    small = name == "Wrong"
    axis.set_ylabel(
        name, rotation=0, ha="right", va="center", fontsize=7.5 if small else 10, color=SOFT if small else INK
    )
    axis.set_yticks([])


def _confidence(axis: Any, confidence: np.ndarray, start: np.ndarray, end: np.ndarray) -> None:
    # Each frame as a step, falling to nothing in a gap.
    edges = np.stack([start, end], 1).ravel()
    values = np.repeat(np.asarray(confidence, np.float64), 2)
    gaps = np.flatnonzero(start[1:] > end[:-1])
    edges = np.insert(edges, np.repeat(2 * gaps + 2, 2), np.stack([end[gaps], start[gaps + 1]], 1).ravel())
    values = np.insert(values, np.repeat(2 * gaps + 2, 2), 0.0)
    axis.fill_between(edges, values, color="#9db4c0", linewidth=0)
    axis.set_ylim(0, 1)
    axis.set_yticks([0, 0.5, 1], ["0", "50", "100 %"])
    axis.yaxis.tick_right()
    axis.set_ylabel("Confidence", rotation=0, ha="right", va="center", fontsize=10, color=INK)
    axis.yaxis.set_label_position("left")
    axis.grid(axis="y", color=GRID, linewidth=0.8)
    axis.set_axisbelow(True)


def _time_axis(axes: Sequence[Any], first: float, last: float) -> None:
    for axis in axes:
        axis.set_xlim(first, last)
        mark_times(axis)
        axis.tick_params(labelsize=8.5, colors=SOFT, length=0, labelbottom=axis is axes[-1])
        for side in axis.spines.values():
            side.set_visible(False)
    axes[-1].tick_params(axis="x", length=3, color=SOFT)
    axes[-1].spines["bottom"].set_visible(True)
    axes[-1].spines["bottom"].set_color(SOFT)


def _legend(figure: Any, classes: Sequence[str], colours: Sequence[str], height: float, top: float) -> None:
    from matplotlib.patches import FancyBboxPatch

    column = (WIDTH - _LEFT - _RIGHT) / _LEGEND_COLUMNS
    for place, (name, colour) in enumerate(zip(classes, colours, strict=True)):
        row, left = place // _LEGEND_COLUMNS, _LEFT + column * (place % _LEGEND_COLUMNS)
        y = top - _LEGEND_ROW * row - 0.12
        box = FancyBboxPatch(
            (left / WIDTH, (y - 0.015) / height),
            0.22 / WIDTH,
            0.13 / height,
            boxstyle="square,pad=0",
            facecolor=colour,
            linewidth=0,
            transform=figure.transFigure,
        )
        figure.add_artist(box)
        figure.text((left + 0.3) / WIDTH, y / height, readable_name(name), fontsize=9, color=INK, parse_math=False)
