"""Small charts as inline SVG: text stays text, nothing is fetched, and the same numbers give the same bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from surgdino.report.curves import COLLAPSE, GRID, INK, LINE, SOFT

# Told apart by people with any colour vision, and in print by their dashes.
PALETTE = (LINE, "#d9480f", "#5f3dc4", "#2b8a3e", "#a61e4d", "#1864ab")
_DASHES = ((0, ()), (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
_TITLE_FITS = 36  # characters of a title in full size; longer ones are set smaller
_STYLE = {"svg.fonttype": "none", "svg.hashsalt": "surgdino", "font.family": "sans-serif"}


@dataclass(frozen=True)
class Line:
    """One curve: its name in the legend, and its points."""

    name: str
    steps: Sequence[float]
    values: Sequence[float]


@dataclass(frozen=True)
class Level:
    """A horizontal line to compare with: where a run began, or what a collapse looks like."""

    name: str
    value: float
    alarming: bool = False


def line_chart(
    title: str, lines: Sequence[Line], levels: Sequence[Level] = (), *, percent: bool = False, width: float = 3.7
) -> str:
    """Curves over the steps as an `<svg>` element, its title in it and described for screen readers."""
    from matplotlib import rc_context

    with rc_context(_STYLE):  # type: ignore[arg-type]
        figure, axis = _figure(width, 2.25)
        for place, line in enumerate(lines):
            colour, dashes = PALETTE[place % len(PALETTE)], _DASHES[place % len(_DASHES)]
            marker = "o" if len(line.values) < 12 else None
            axis.plot(
                line.steps, line.values, color=colour, linestyle=dashes, lw=1.8, marker=marker, ms=3, label=line.name
            )
        for level in levels:
            colour = COLLAPSE if level.alarming else SOFT
            axis.axhline(level.value, color=colour, lw=1, linestyle=(0, (4, 3)))
            coordinates = ("axes fraction", "data")
            axis.annotate(
                level.name, (1, level.value), xycoords=coordinates, ha="right", va="bottom", fontsize=7.5, color=colour
            )
        _dress(axis, title, percent)
        if len(lines) > 1:
            axis.legend(fontsize=7.5, frameon=False, labelcolor=INK)
        return _svg(figure, _described(title, lines))


def interval_chart(title: str, rows: Sequence[tuple[str, float, float, float]], *, width: float = 7.6) -> str:
    """Differences with their intervals, one row each, against a line at no difference.

    Args:
        rows: (name, low, value, high).
    """
    from matplotlib import rc_context

    with rc_context(_STYLE):  # type: ignore[arg-type]
        figure, axis = _figure(width, 0.9 + 0.36 * len(rows))
        for place, (_, low, value, high) in enumerate(reversed(rows)):
            colour = PALETTE[0] if low > 0 else COLLAPSE if high < 0 else SOFT
            axis.plot([low, high], [place, place], color=colour, lw=2.2, solid_capstyle="round")
            axis.plot([value], [place], "o", color=colour, ms=6)
        axis.axvline(0, color=INK, lw=0.9)
        axis.set_yticks(range(len(rows)), [name for name, *_ in reversed(rows)])
        axis.set_ylim(-0.6, len(rows) - 0.4)
        _dress(axis, title, percent=False, step=False)
        axis.tick_params(axis="y", labelsize=9, labelcolor=INK)
        told = "; ".join(f"{name} {value:+.1f} [{low:+.1f}, {high:+.1f}]" for name, low, value, high in rows)
        return _svg(figure, f"{title}: {told}")


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    figure.patch.set_alpha(0)
    axis = figure.subplots()
    axis.patch.set_alpha(0)
    return figure, axis


def _dress(axis: Any, title: str, percent: bool, step: bool = True) -> None:
    from matplotlib.ticker import PercentFormatter

    size = 9.5 * min(1, _TITLE_FITS / max(len(title), 1)) if step else 9.5
    axis.set_title(title, loc="left", fontsize=size, color=INK, fontweight="bold")
    if step:
        axis.set_xlabel("step", fontsize=8, color=SOFT)
    if percent:
        axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    axis.tick_params(labelsize=8, colors=SOFT, length=0)
    axis.grid(color=GRID, linewidth=0.8)
    axis.set_axisbelow(True)
    for side in ("top", "right", "left", "bottom"):
        axis.spines[side].set_visible(side == "bottom")
        axis.spines[side].set_color(GRID)


def _described(title: str, lines: Sequence[Line]) -> str:
    ends = [f"{line.name} from {line.values[0]:.4g} to {line.values[-1]:.4g}" for line in lines if len(line.values)]
    return f"{title}: {'; '.join(ends)}"


def _svg(figure: Any, description: str) -> str:
    from html import escape

    buffer = io.StringIO()
    metadata: Mapping[str, Any] = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(buffer, format="svg", metadata=metadata, transparent=True)
    text = buffer.getvalue()
    svg = text[text.index("<svg") :]
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(description, quote=True)}" ', 1)
