"""Small charts as inline SVG: text stays text, nothing is fetched, and the same numbers give the same bytes."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import isnan
from typing import Any

from surgdino.report.colours import ALARM, GRID, INK, LINE, SOFT

# Told apart by people with any colour vision, and in print by their dashes.
PALETTE = (LINE, "#d9480f", "#5f3dc4", "#2b8a3e", "#a61e4d", "#1864ab")
_DASHES = ((0, ()), (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
_TITLE_FITS = 36  # characters of a title in full size; longer ones are set smaller
_NAME_FITS = 44  # characters of a row's name in a line
_STYLE = {
    "text.parse_math": False,  # a dollar sign in a name is one
    "svg.fonttype": "none",
    "svg.hashsalt": "surgdino",
    "font.family": "sans-serif",
}
_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


@dataclass(frozen=True)
class Line:
    """One curve: its name in the legend, and its points."""

    name: str
    steps: Sequence[float]
    values: Sequence[float]


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

    def draw(axis: Any) -> None:
        for place, line in enumerate(lines):
            colour, dashes = PALETTE[place % len(PALETTE)], _DASHES[place % len(_DASHES)]
            marker = "o" if len(line.values) < 12 else None
            axis.plot(
                line.steps, line.values, color=colour, linestyle=dashes, lw=1.8, marker=marker, ms=3, label=line.name
            )
        if start is not None:
            draw_level(axis, start, "step 0", SOFT)
        draw_bounds(axis, bounds)
        style_axis(axis, title, size=9.5 * min(1, _TITLE_FITS / max(len(title), 1)), bold=True)
        axis.set_xlabel(along, fontsize=8, color=SOFT)
        axis.xaxis.get_major_locator().set_params(integer=True)
        if percent:
            from matplotlib.ticker import PercentFormatter

            axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
        if len(lines) > 1:
            axis.legend(fontsize=7.5, frameon=False, labelcolor=INK)

    ends = [f"{line.name} from {line.values[0]:.4g} to {line.values[-1]:.4g}" for line in lines if len(line.values)]
    return _svg(3.7, 2.25, f"{title}: {'; '.join(ends)}", draw)


def interval_chart(
    title: str, rows: Sequence[tuple[str, float, float, float]], *, points: Sequence[Sequence[float]] = ()
) -> str:
    """Differences with their intervals, one row each, against a line at no difference.

    Args:
        rows: (name, low, value, high); the ends are NaN where there is no interval.
        points: of each row, single differences to show behind.
    """
    names = [textwrap.fill(name, _NAME_FITS) for name, *_ in rows]
    taken = max((name.count("\n") for name in names), default=0)  # further lines of the longest name

    def draw(axis: Any) -> None:
        for place, values in enumerate(reversed(points)):
            axis.plot(values, [place] * len(values), "o", mfc="none", color=SOFT, ms=4, mew=0.8)
        for place, (_, low, value, high) in enumerate(reversed(rows)):
            colour = PALETTE[0] if low > 0 else ALARM if high < 0 else SOFT
            axis.plot([low, high], [place, place], color=colour, lw=2.2, solid_capstyle="round")
            axis.plot([value], [place], "o", color=colour, ms=6)
        axis.axvline(0, color=INK, lw=0.9)
        axis.set_yticks(range(len(rows)), names[::-1])
        axis.set_ylim(-0.6, len(rows) - 0.4)
        style_axis(axis, title, size=9.5, bold=True, steps=False)
        axis.tick_params(axis="y", labelsize=9, labelcolor=INK)

    ends = ("" if isnan(low) else f" [{low:+.1f}, {high:+.1f}]" for _, low, _, high in rows)
    values = "; ".join(f"{name} {value:+.1f}{end}" for (name, _, value, _), end in zip(rows, ends, strict=True))
    return _svg(7.6, 0.9 + (0.36 + 0.15 * taken) * len(rows), f"{title}: {values}", draw)


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


def share_chart(title: str, rows: Sequence[tuple[str, float, float]]) -> str:
    """Shares before and after, one row each, as a ring and a point.

    Args:
        rows: (name, before, after), shares of 1.
    """

    def draw(axis: Any) -> None:
        places = range(len(rows))[::-1]
        names, before, after = zip(*rows, strict=True)
        axis.hlines(places, before, after, color=GRID, lw=2.5)
        axis.plot(before, places, "o", mfc="none", color=SOFT, ms=6, clip_on=False, label="before")
        axis.plot(after, places, "o", color=PALETTE[0], ms=6, clip_on=False, label="after")
        style_axis(axis, title, size=9.5, bold=True, steps=False)
        axis.set_yticks(places, names)
        axis.set_ylim(-0.6, len(rows) - 0.4)
        axis.set_xlim(0, max(*before, *after) * 1.04)
        axis.tick_params(axis="y", labelsize=8.5, labelcolor=INK)
        axis.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")
        axis.legend(fontsize=7.5, frameon=False, labelcolor=INK, loc="lower right")

    text = "; ".join(f"{name} {100 * a:.1f} % to {100 * b:.1f} %" for name, a, b in rows)
    return _svg(7.6, 0.9 + 0.28 * len(rows), f"{title}: {text}", draw)


def bar_chart(title: str, rows: Sequence[tuple[str, float | None, str]]) -> str:
    """A bar a class, its value at its end.

    Args:
        rows: (name, value or None where it is undefined, what is written beside it). Values up to 1 are shares.
    """
    names = [_short(name, _NAME_FITS) for name, *_ in rows]
    values = [0.0 if value is None else float(value) for _, value, _ in rows]
    highest = max(1.0, *values)

    def draw(axis: Any) -> None:
        places = range(len(rows))[::-1]
        axis.barh(places, values, height=0.62, color=PALETTE[0])
        for place, value, (_, known, note) in zip(places, values, rows, strict=True):
            text = "not defined" if known is None else f"{100 * value:.1f}" if highest <= 1 else f"{value:.1f}"
            style = {"textcoords": "offset points", "xytext": (4, 0), "va": "center", "fontsize": 8}
            axis.annotate(
                f"{text} · {note}" if note else text, (value, place), color=SOFT if known is None else INK, **style
            )
        style_axis(axis, title, size=9.5, bold=True, steps=False)
        axis.set_yticks(places, names)
        axis.set_ylim(-0.6, len(rows) - 0.4)
        axis.set_xlim(0, 1.3 * highest)  # room for what is written
        axis.tick_params(axis="y", labelsize=8.5, labelcolor=INK)
        if highest <= 1:
            axis.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100 %"])

    text = "; ".join(f"{name} {'not defined' if value is None else f'{value:.3f}'}" for name, value, _ in rows)
    return _svg(7.6, 0.8 + 0.26 * len(rows), f"{title}: {text}", draw)


def matrix_chart(title: str, rows: Sequence[str], columns: Sequence[str], counts: Any, unit: str) -> str:
    """A confusion matrix: each row in percent of its sum, darker where it is more.

    Args:
        rows: what is there; their counts stand beside them.
        columns: what was predicted.
        counts: int [rows, columns].
        unit: what is counted.
    """
    totals = counts.sum(1)
    shares = counts / totals.clip(1)[:, None]
    kinds = [[_short(name, _TITLE_FITS) for name in names] for names in (rows, columns)]

    def draw(axis: Any) -> None:
        axis.pcolormesh(shares, cmap="GnBu", vmin=0, vmax=1, edgecolors="white", linewidth=1)
        for (row, column), share in _cells(shares):
            if share >= 0.005:
                style = {"ha": "center", "va": "center", "fontsize": 8, "color": "white" if share > 0.6 else INK}
                axis.text(column + 0.5, row + 0.5, f"{100 * share:.0f}", **style)
        style_axis(axis, title, size=9.5, bold=True, steps=False)
        axis.grid(visible=False)
        beside = [f"{name}  ({total:,})" for name, total in zip(kinds[0], totals.tolist(), strict=True)]
        axis.set_yticks([place + 0.5 for place in range(len(rows))], beside)
        axis.set_xticks([place + 0.5 for place in range(len(columns))], kinds[1], rotation=40, ha="right")
        axis.invert_yaxis()
        axis.tick_params(labelsize=8, labelcolor=INK)
        axis.set_ylabel(f"is ({unit})", fontsize=8, color=SOFT)
        axis.set_xlabel("predicted", fontsize=8, color=SOFT)

    right = "; ".join(
        f"{name} {100 * row.max():.0f} % {columns[row.argmax()]}" for name, row in zip(rows, shares, strict=True)
    )
    return _svg(7.6, 1.8 + 0.3 * len(rows), f"{title}, most of each row: {right}", draw)


def _short(name: str, most: int) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _cells(shares: Any) -> list[tuple[tuple[int, int], float]]:
    return [((row, column), float(share)) for row, line in enumerate(shares) for column, share in enumerate(line)]


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
    label = f'<svg role="img" aria-label="{escape(description, quote=True)}" '
    return text[text.index("<svg") :].replace("<svg ", label, 1)


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
