"""The curves of a run as one picture, read from its metrics.jsonl."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from surgdino.paths import atomic_write
from surgdino.report.probe_curves import LEVEL, SCORE, draw_level, draw_probe_panel, probe_panels

INK, SOFT, GRID = "#22303c", "#7b8794", "#e4e7eb"
LINE, COLLAPSE = "#0b7285", LEVEL
# What a run logs, by key, as tables and figures call it. The order is theirs too.
TERMS = {
    "loss": "loss (sum)",
    "comp": "comp: agreement with the teacher",
    "expa": "expa: coding rate of the features",
    "patch": "patch: masked patches",
    "cls": "cls: class tokens against prototypes",
    "koleo": "koleo: distance to the nearest",
    "entropy": "entropy of the teacher's targets",
    "information": "information in the targets",
}
PANELS = {
    **TERMS,
    "effective_rank": "effective rank of the features",
    "gradient_norm": "gradient norm",
    "lr": "learning rate",
    "images_per_second": "images a second",
}


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl in order; a last line that a kill cut short is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def draw_curves(metrics: Path, target: Path, collapse: Mapping[str, float] | None = None) -> Path | None:
    """Draw loss terms, rates, throughput and probes over the steps into a PNG; None where nothing was logged.

    Args:
        collapse: term -> its value in a collapsed run; dashed lines, so that a healthy run can be told by looking.
    """
    if not metrics.exists():
        return None
    every = read_metrics(metrics)
    rows, probes = [row for row in every if "loss" in row], [row for row in every if SCORE in row]
    if not rows:
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = [(key, title) for key, title in PANELS.items() if any(key in row for row in rows)]
    measured = probe_panels(probes)
    columns = 4
    training_rows, lines = -(-len(drawn) // columns), -(-len(drawn) // columns) - (-len(measured) // columns)
    figure = Figure(figsize=(12.5, 2.15 * lines), dpi=110, layout="constrained", facecolor="white")
    grid = figure.subplots(lines, columns, squeeze=False)
    for axis in grid.ravel():
        axis.set_axis_off()
    for axis, (key, title) in zip(grid.ravel(), drawn, strict=False):
        _panel(axis, rows, title, key, (collapse or {}).get(key))
    for axis, panel in zip(grid[training_rows:].ravel(), measured, strict=False):
        draw_probe_panel(axis, probes, panel)
        _dress(axis, panel.title)
    with atomic_write(target) as temporary:
        FigureCanvasAgg(figure).print_png(str(temporary))
    return target


def _panel(axis: Any, rows: Sequence[dict[str, Any]], title: str, key: str, collapse: float | None) -> None:
    points = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
    axis.plot(*zip(*points, strict=True), color=LINE, linewidth=1.8, marker="o" if len(points) == 1 else None)
    if collapse is not None:
        draw_level(axis, collapse, "collapse")
    _dress(axis, title)


def _dress(axis: Any, title: str) -> None:
    axis.set_axis_on()
    axis.set_title(title, loc="left", fontsize=10, color=INK)
    axis.set_xlabel("step", fontsize=8, color=SOFT)
    axis.tick_params(labelsize=8, colors=SOFT, length=0)
    axis.grid(color=GRID, linewidth=0.8)
    axis.set_axisbelow(True)
    for side in ("top", "right", "left", "bottom"):
        axis.spines[side].set_visible(side == "bottom")
        axis.spines[side].set_color(GRID)
