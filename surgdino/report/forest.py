"""Rows of marks on one scale: a forest plot of changes or values, bars of classes, shares before and after.

The browser lays it out: words are words at every width, lines keep their width, colours follow light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from itertools import groupby

from surgdino.report.evidence import Judged

_STEPS = (1, 2, 5, 10)
_TICKS = 6  # at most
_NAMED = 60  # operations in a row; of more the dots have no names, and those at one place are one dot
_PLACES = 250  # where dots of so many operations can be told apart


@dataclass(frozen=True)
class Row:
    """A line of the plot.

    Attributes:
        name: what it is.
        text: its numbers, beside the marks.
        value: the mark; None where there is none.
        low, high: the ends of the line through it; NaN where there is none.
        dots: operation -> value.
        tone: `better` and `worse` have a colour and a shape of their own.
        ring: an open mark beside the first, such as the value before.
    """

    name: str
    text: str
    value: float | None = None
    low: float = math.nan
    high: float = math.nan
    dots: Mapping[str, float] = field(default_factory=dict)
    tone: str = ""
    ring: float | None = None


@dataclass(frozen=True)
class Forest:
    """The plot. `blocks.html` draws it from `parts`.

    Attributes:
        title: says what is shown, and in which unit.
        groups: (heading, rows); a heading may be empty.
        ends: of what is possible; the scale does not pass them, and bars have all of it.
        span: what it spans at least, so that noise looks like noise.
        zero: where a line stands, such as no change; bars begin there.
        bars: whether values are bars.
        note: below it.
        unit: behind the last tick.
    """

    title: str
    groups: Sequence[tuple[str, Sequence[Row]]]
    ends: Sequence[float] = ()
    span: float = 5.0
    zero: float | None = None
    bars: bool = False
    note: str = ""
    unit: str = ""

    @cached_property
    def scale(self) -> tuple[float, float, float]:
        """Where the scale begins and ends, and from tick to tick."""
        values = [v for row in self.rows for v in (row.value, row.ring, row.low, row.high, *row.dots.values())]
        held = [v for v in values if v is not None and math.isfinite(v)]
        held += [*([] if self.zero is None else [self.zero]), *(self.ends if self.bars else ())]
        low, high = min(held, default=0.0), max(held, default=1.0)
        if (lack := self.span - (high - low)) > 0:
            low, high = low - lack / 2, high + lack / 2
        if self.ends:
            low, high = max(low, min(self.ends)), min(high, max(self.ends))
        rough = (high - low) / _TICKS
        power = 10 ** math.floor(math.log10(rough))
        step = next(k * power for k in _STEPS if k * power >= rough * 0.999)
        low, high = step * math.floor(low / step + 1e-9), step * math.ceil(high / step - 1e-9)
        return low, high, step

    @property
    def rows(self) -> list[Row]:
        """Of all groups."""
        return [row for _, rows in self.groups for row in rows]

    def ticks(self) -> list[tuple[str, str]]:
        """(place, label) of the axis."""
        low, high, step = self.scale
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        sign = "+" if self.zero == 0 and not self.bars else ""
        marks = [low + step * k for k in range(round((high - low) / step) + 1)]
        labels = [f"{0 if abs(v) < step / 1e6 else v:{sign if abs(v) > step / 1e6 else ''}.{digits}f}" for v in marks]
        labels[-1] += f" {self.unit}" if self.unit else ""
        return [(self.place(v), label) for v, label in zip(marks, labels, strict=True)]

    def place(self, value: float) -> str:
        """A value on the scale as `42.1%`."""
        low, high, _ = self.scale
        return f"{100 * (value - low) / (high - low):.2f}%"

    def marks(self, row: Row) -> Iterator[str]:
        """A row's marks as SVG elements, from the back to the front."""
        if self.bars and row.value is not None:
            start = self.zero or 0.0
            yield f'<line class="bar" x1="{self.place(start)}" x2="{self.place(row.value)}" y1="50%" y2="50%"/>'
            return
        lane = "34%" if row.dots else "50%"
        places = {self.place(v): f"{op}: {v:.1f}" for op, v in row.dots.items() if math.isfinite(v)}
        if len(row.dots) > _NAMED:
            places = {f"{round(float(p[:-1]) * _PLACES / 100) * 100 / _PLACES:.1f}%": "" for p in places}
        for place, name in places.items():
            title = f"<title>{escape(name)}</title>" if name else ""
            yield f'<circle class="dot" cx="{place}" cy="74%" r="3">{title}</circle>'
        low, high = (row.value, row.ring) if row.ring is not None else (row.low, row.high)
        if low is not None and high is not None and math.isfinite(low + high):
            yield f'<line class="span" x1="{self.place(low)}" x2="{self.place(high)}" y1="{lane}" y2="{lane}"/>'
        if row.ring is not None:
            yield f'<circle class="ring" cx="{self.place(row.ring)}" cy="{lane}" r="4.5"/>'
        if row.value is not None and math.isfinite(row.value):
            shape = _SHAPES.get(row.tone, _SHAPES[""])
            yield f'<svg class="point" x="{self.place(row.value)}" y="{lane}"><path d="{shape}"/></svg>'


# Told apart without colours: what rose points up, what fell points down.
_SHAPES = {
    "better": "M-6.5 5.5L0 -6.5L6.5 5.5z",
    "worse": "M-6.5 -5.5L0 6.5L6.5 -5.5z",
    "": "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0 -10 0z",
}


def forest_of(found: Sequence[Judged], title: str) -> Forest | None:
    """Changes of shares in points, what is better to the right; None where there is none with operations."""
    shown = [j for j in found if j.better is not None and j.change.measure.percent and j.change.difference]
    groups = [(name, [_row(j) for j in each]) for name, each in groupby(shown, key=lambda j: j.group)]
    if not groups:
        return None
    few = all(math.isnan(row.low) for _, rows in groups for row in rows)
    dots = "Small dots: single operations. "
    note = f"{dots}Too few for an interval." if few else f"{dots}Line: 95 % interval over them; ▲ above 0, ▼ below 0."
    return Forest(f"{title}, in points: right of 0 is better", groups, zero=0.0, note=note)


def _row(judged: Judged) -> Row:
    change, sign = judged.change, 100 if judged.better else -100
    assert change.difference is not None
    low, high = sorted((sign * change.difference.low, sign * change.difference.high))
    dots = {op: sign * value for op, value in change.by_operation.items()}
    value = sign * change.difference.value
    if change.interval:
        text = f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"
    else:
        each = ", ".join(f"{v:+.1f}" for v in dots.values())
        text = f"{value:+.1f}" + (f" ({each})" if len(dots) > 1 else "")
    name = change.measure.words if judged.better else f"{change.measure.words}, less is better"
    return Row(name, text, value, low, high, dots, judged.tone or "")
