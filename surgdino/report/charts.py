"""Small charts as inline SVG: text stays text, nothing is fetched, and the same numbers give the same bytes."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from surgdino.report.colours import ALARM, GRID, INK, LINE, SOFT

# Told apart by people with any colour vision, and in print by their dashes.
PALETTE = (LINE, "#d9480f", "#5f3dc4", "#2b8a3e", "#a61e4d", "#1864ab")
_DASHES = ((0, ()), (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
# The page has its own colours of these in the dark; the SVG names them, so that one chart serves both.
_COLOUR = re.compile(r"(?<=[ :])#[0-9a-fA-F]{6}(?=[;\"])")
_VARIABLES = {INK: "var(--ink)", SOFT: "var(--soft)", GRID: "var(--faint)", ALARM: "var(--bad)"} | {
    colour: f"var(--line{place})" for place, colour in enumerate(PALETTE)
}
_TITLE_FITS = 36  # characters of a title in full size; longer ones are set smaller
_STYLE = {
    "text.parse_math": False,  # a dollar sign in a name is one
    "svg.fonttype": "none",
    "svg.hashsalt": "surgdino",
    "font.family": "sans-serif",
}
_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}
_POINTS = 240  # of a curve; of more, it is the mean of neighbours, and a band from the lowest to the highest
_SHARE = 0.05  # an axis spans at least this share of its largest value, so that noise looks like noise
_POINTS_SPAN = 0.05  # one of shares spans at least five points


@dataclass(frozen=True)
class Line:
    """One curve: its name in the legend, and its points.

    Attributes:
        band: (low, high) of each point, where it is known.
        beside: thin lines with the same steps, such as one an operation.
    """

    name: str
    steps: Sequence[float]
    values: Sequence[float]
    band: Sequence[tuple[float, float]] = ()
    beside: Sequence[Sequence[float]] = ()


def line_chart(
    title: str,
    lines: Sequence[Line],
    *,
    start: float | None = None,
    percent: bool = False,
    along: str = "step",
    bounds: Sequence[float] = (),
) -> str:
    """Curves over the steps as an `<svg>` element, its title in it and described for screen readers.

    Args:
        start: the value at step 0, as a dashed line.
        along: what the x axis counts, in whole numbers.
        bounds: steps between two phases, as dotted lines.
    """
    thinned = [_thinned(line) for line in lines]

    def draw(axis: Any) -> None:
        for place, line in enumerate(thinned):
            colour, dashes = PALETTE[place % len(PALETTE)], _DASHES[place % len(_DASHES)]
            if line.band:
                axis.fill_between(line.steps, *zip(*line.band, strict=True), color=colour, alpha=0.16, lw=0)
            for values in line.beside:
                axis.plot(line.steps, values, color=colour, lw=0.7, alpha=0.45)
            marker = "o" if len(line.values) < 12 else None
            style = {"color": colour, "linestyle": dashes, "lw": 1.8, "marker": marker, "ms": 3}
            axis.plot(line.steps, line.values, **style, label=line.name)
        if start is not None:
            draw_level(axis, start, "step 0", SOFT)
        draw_bounds(axis, bounds)
        widen(axis, percent=percent)
        style_axis(axis, title, size=9.5 * min(1, _TITLE_FITS / max(len(title), 1)), bold=True)
        axis.set_xlabel(along, fontsize=8, color=SOFT)
        axis.xaxis.get_major_locator().set_params(integer=True)
        if percent:
            axis.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")
        if len(lines) > 1:
            axis.legend(fontsize=7.5, frameon=False, labelcolor=INK)

    form = (lambda v: f"{100 * v:.1f} %") if percent else (lambda v: f"{v:.4g}")
    ends = [f"{line.name} from {form(line.values[0])} to {form(line.values[-1])}" for line in lines if line.values]
    return _svg(3.7, 2.25, f"{title}: {'; '.join(ends)}", draw)


def widen(axis: Any, *, percent: bool = False, scale: float = 1.0) -> None:
    """Let the y axis span five points of shares, or a twentieth of the largest value, at least.

    Args:
        percent: whether its values are shares of `scale`.
    """
    low, high = axis.get_ylim()
    least = scale * _POINTS_SPAN if percent else _SHARE * max(abs(low), abs(high))
    span = max(high - low, least)
    bottom = (low + high - span) / 2
    if axis.dataLim.y0 >= 0:  # what is never negative has no room below zero
        bottom = max(bottom, -0.03 * span)
    axis.set_ylim(bottom, bottom + span)


def _thinned(line: Line) -> Line:
    """A curve of few points; each stands for as many neighbours, and the band says how far these lie apart."""
    count = -(-len(line.values) // _POINTS)
    if count < 2 or line.band or line.beside:
        return line
    parts = [slice(k, k + count) for k in range(0, len(line.values), count)]
    means = [sum(line.values[part]) / len(line.values[part]) for part in parts]
    band = [(min(line.values[part]), max(line.values[part])) for part in parts]
    return Line(line.name, [line.steps[part][-1] for part in parts], means, band)


def histogram_chart(
    title: str, edges: Sequence[float], shares: Mapping[str, Sequence[float]], levels: Mapping[str, float]
) -> str:
    """Histograms over the same bins, one upon the other, with named lines at some values.

    Args:
        edges: of the bins, one more than each of `shares` has.
        levels: name -> value.
    """

    def draw(axis: Any) -> None:
        for place, (name, heights) in enumerate(shares.items()):
            colour = PALETTE[place % len(PALETTE)]
            axis.stairs(heights, edges, fill=True, color=colour, alpha=0.12)
            axis.stairs(heights, edges, color=colour, lw=1.6, ls=_DASHES[place % len(_DASHES)], label=name)
        for value in dict.fromkeys(levels.values()):
            name = ", ".join(name for name, other in levels.items() if other == value)
            axis.axvline(value, color=INK, lw=1)
            at = {"xycoords": ("data", "axes fraction"), "xytext": (-2, 0), "textcoords": "offset points"}
            style = {"fontsize": 7.5, "color": INK, "ha": "right", "va": "top", "rotation": 90}
            axis.annotate(f"{name} {value:.3f}", (value, 0.98), **at, **style)
        style_axis(axis, title, size=9.5, bold=True, steps=False)
        axis.set_xlim(edges[0], edges[-1])
        axis.set_ylim(0, 1.4 * max(max(heights) for heights in shares.values()))  # room for the names of the lines
        axis.set_yticks([])
        axis.set_xlabel("cosine", fontsize=8, color=SOFT)
        axis.legend(fontsize=7.5, frameon=False, labelcolor=INK, loc="upper left")

    marks = ", ".join(f"{name} {value:.3f}" for name, value in levels.items())
    return _svg(7.6, 2.8, f"{title}: {', '.join(shares)}; lines at {marks or 'none'}", draw)


def scatter_chart(title: str, groups: Mapping[str, Any], colours: Mapping[str, str]) -> str:
    """Points [n, 2] of a few groups, the later ones on top, without axes.

    Args:
        colours: of groups; the others have their turn in the palette.
    """

    def draw(axis: Any) -> None:
        for place, (name, points) in enumerate(groups.items()):
            colour = colours.get(name) or PALETTE[place % len(PALETTE)]
            axis.plot(points[:, 0], points[:, 1], ".", color=colour, ms=5, mew=0, alpha=0.7, label=name)
        style_axis(axis, title, size=9.5, bold=True, steps=False)
        axis.set_axis_off()
        beside = {"loc": "center left", "bbox_to_anchor": (1, 0.5)}
        axis.legend(fontsize=7.5, frameon=False, labelcolor=INK, markerscale=2, **beside)

    return _svg(7.6, 3.8, f"{title}: {', '.join(f'{len(points)} of {name}' for name, points in groups.items())}", draw)


def _svg(width: float, height: float, description: str, draw: Callable[[Any], None]) -> str:
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    buffer = io.StringIO()
    with rc_context(_STYLE):  # type: ignore[arg-type]
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        axis = figure.subplots()
        figure.patch.set_alpha(0)
        axis.patch.set_alpha(0)
        draw(axis)
        figure.savefig(buffer, format="svg", metadata=_METADATA, transparent=True)
    text = buffer.getvalue()
    text = _COLOUR.sub(lambda found: _VARIABLES.get(found.group().lower(), found.group()), text[text.index("<svg") :])
    label = f'<svg role="img" aria-label="{escape(description, quote=True)}" '
    return text.replace("<svg ", label, 1)


def style_axis(axis: Any, title: str, *, size: float, bold: bool = False, steps: bool = True) -> None:
    """Title, grid and ticks of every chart of a run; `steps` names the x axis."""
    axis.set_axis_on()
    axis.set_title(title, loc="left", fontsize=size, color=INK, fontweight="bold" if bold else "normal")
    if steps:
        axis.set_xlabel("step", fontsize=8, color=SOFT)
    axis.tick_params(labelsize=8, colors=SOFT, length=0)
    axis.grid(color=GRID, linewidth=0.8)
    axis.set_axisbelow(True)
    for side in ("top", "right", "left", "bottom"):
        axis.spines[side].set_visible(side == "bottom")
        axis.spines[side].set_color(GRID)


def draw_bounds(axis: Any, bounds: Sequence[float]) -> None:
    """Dotted lines at the steps where a phase of a run ends and the next begins."""
    for step in bounds:
        axis.axvline(step, color=SOFT, linewidth=0.9, linestyle=(0, (1, 2)))


def draw_level(axis: Any, value: float, name: str, colour: str) -> None:
    """A dashed line at a value to compare with: where a run began, or what a collapse looks like."""
    axis.axhline(value, color=colour, linewidth=1, linestyle=(0, (4, 3)))
    place = {"xycoords": ("axes fraction", "data"), "ha": "right", "va": "bottom"}
    axis.annotate(name, (1, value), fontsize=7.5, color=colour, **place)
