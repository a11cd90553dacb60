"""What the probes of a run found, as panels of its curves: each with the value of step 0 as a level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from surgdino.engine.probing.measures import Measure, measure_named

PREFIX = "probe_"
SCORE = PREFIX + "score"
PROBE, OTHER, LEVEL = "#5f3dc4", "#b197fc", "#c92a2a"
_NETWORKS = ("student", "teacher")
# Probes of the same labels as the linear one, and their label in its panel.
_BESIDE_LINEAR = {"_aligned_": "linear, aligned", "_knn_": "k-NN"}
# A figure that hardly moves shall look like it: shares are shown over five points at least.
_SPAN = 5.0


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
        title: above it.
        lines: (key of metrics.jsonl, label); the first is the main one.
        percent: whether the values are shares.
    """

    title: str
    lines: tuple[tuple[str, str], ...]
    percent: bool


def probe_panels(probes: Sequence[dict[str, Any]]) -> list[Panel]:
    """The score, then what is judged: a task's probes in one panel, led by the linear one, the other network beside."""
    keys = dict.fromkeys(key for row in probes for key, value in row.items() if isinstance(value, int | float))
    panels = [_panel(keys, SCORE, "score of the probe (chooses the best)", percent=True)] if SCORE in keys else []
    for key in keys:
        measure = _measure(key.removeprefix(PREFIX))
        if measure is not None and measure.margin is not None and not any(kind in key for kind in _BESIDE_LINEAR):
            panels.append(_panel(keys, key, measure.words, measure.percent))
    drift = tuple((key, key.removeprefix(PREFIX + "cka_")) for key in keys if key.startswith(PREFIX + "cka_"))
    return [*panels, Panel("likeness to step 0 (CKA)", drift, percent=False)] if drift else panels


def _panel(keys: Any, key: str, title: str, percent: bool) -> Panel:
    name = key.removeprefix(PREFIX)
    beside = [(key.replace("_linear_", kind), label) for kind, label in _BESIDE_LINEAR.items()]
    beside += [(f"{PREFIX}{n}_{name}", n) for n in _NETWORKS]
    others = [(other, label) for other, label in beside if other != key and other in keys]
    main = (
        "linear" if "_linear_" in key else next((n for n in _NETWORKS if (f"{PREFIX}{n}_{name}", n) not in others), "")
    )
    return Panel(title, ((key, main), *others), percent)


def _measure(name: str) -> Measure | None:
    if name.startswith(_NETWORKS):
        return None
    try:
        return measure_named(name)
    except KeyError:
        return None


def draw_probe_panel(axis: Any, probes: Sequence[dict[str, Any]], panel: Panel) -> None:
    """Draw the lines of a panel into a matplotlib axis."""
    factor = 100 if panel.percent else 1
    shown = []
    for place, (key, label) in enumerate(panel.lines):
        points = [(row["step"], factor * row[key]) for row in probes if row.get(key) is not None]
        style = {"color": PROBE, "linewidth": 1.8} if place == 0 else {"color": OTHER, "linewidth": 1.2}
        dashes = "-" if place < 2 else ":"
        axis.plot(*zip(*points, strict=True), linestyle=dashes, marker="o", markersize=3, label=label, **style)
        shown += [value for _, value in points]
    start = probes[0].get(panel.lines[0][0])
    if start is not None:
        draw_level(axis, factor * start, "step 0")
    if panel.percent and max(shown) - min(shown) < _SPAN:
        middle = (max(shown) + min(shown)) / 2
        axis.set_ylim(middle - 0.6 * _SPAN, middle + 0.6 * _SPAN)
    if len(panel.lines) > 1:
        axis.legend(fontsize=7, frameon=False, loc="best", labelcolor="#7b8794")


def draw_level(axis: Any, height: float, words: str) -> None:
    """A dashed line at a value that means something, with its name."""
    axis.axhline(height, color=LEVEL, linewidth=1, linestyle=(0, (4, 3)))
    place = {"xycoords": ("axes fraction", "data"), "ha": "right", "va": "bottom"}
    axis.annotate(words, (1, height), fontsize=8, color=LEVEL, **place)
