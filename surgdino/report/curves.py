"""curves.png: the loss terms, rates and probes of a run over its steps, read from its metrics.jsonl."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from surgdino.paths import atomic_write
from surgdino.report.charts import draw_bounds, draw_level, style_axis, widen
from surgdino.report.colours import ALARM, LINE, SOFT
from surgdino.report.evidence import NETWORKS, PROBE, SCORE, measure_of, phase_bounds
from surgdino.report.record import read_metrics

# What a run logs, by key, and its name in tables and figures, in their order.
TERMS = {
    "loss": "loss (sum)",
    "comp": "comp: agreement with the teacher",
    "expa": "expa: coding rate of the features",
    "local": "local: local crops against the teacher",
    "patch": "patch: masked patches",
    "patches": "patches: agreement of all patches",
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
GUIDE = "guide_"  # of guides' losses and figures, `guide_time` and `guide_time_error`
_COLUMNS = 4
_PROBE_LINE, _OTHER_LINE = "#5f3dc4", "#b197fc"
# Probes of the same labels as the linear one, and their label in its panel.
_BESIDE_LINEAR = {"_aligned_": "linear, aligned", "_knn_": "k-NN"}


@dataclass(frozen=True)
class ProbePanel:
    """A panel of probes: its title, its lines as (key of metrics.jsonl, label), the main one first, and its unit."""

    title: str
    lines: Sequence[tuple[str, str]]
    percent: bool


def draw_curves(metrics: Path, target: Path, collapse: Mapping[str, float] | None = None) -> Path | None:
    """Draw loss terms, rates, throughput and probes over the steps into a PNG; None where nothing was logged.

    Args:
        collapse: term -> its value in a collapsed run; drawn as a dashed line, to compare with.
    """
    every = read_metrics(metrics)
    rows, probes = [row for row in every if "loss" in row], [row for row in every if PROBE + SCORE in row]
    if not rows:
        return None
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    # A dollar sign in a name is one.
    with rc_context({"text.parse_math": False}), atomic_write(target) as temporary:
        FigureCanvasAgg(_figure(rows, probes, collapse or {})).print_png(str(temporary))
    return target


def _figure(
    rows: Sequence[Mapping[str, Any]], probes: Sequence[Mapping[str, Any]], collapse: Mapping[str, float]
) -> Any:
    from matplotlib.figure import Figure

    titles = PANELS | {key: key.replace("_", " ") for row in rows for key in row if key.startswith(GUIDE)}
    drawn = [key for key in titles if any(key in row for row in rows)]
    panels = probe_panels(probes)
    training_lines = -(-len(drawn) // _COLUMNS)
    lines = training_lines - (-len(panels) // _COLUMNS)
    figure = Figure(figsize=(12.5, 2.15 * lines), dpi=110, layout="constrained", facecolor="white")
    grid, bounds = figure.subplots(lines, _COLUMNS, squeeze=False), phase_bounds(rows)
    for axis in grid.ravel():
        axis.set_axis_off()
    for axis, key in zip(grid.ravel(), drawn, strict=False):
        points = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
        axis.plot(*zip(*points, strict=True), color=LINE, linewidth=1.8, marker="o" if len(points) == 1 else None)
        if key in collapse:
            draw_level(axis, collapse[key], "collapse", ALARM)
        draw_bounds(axis, bounds)
        widen(axis)
        style_axis(axis, titles[key], size=10)
    for axis, panel in zip(grid[training_lines:].ravel(), panels, strict=False):
        _draw_probes(axis, probes, panel)
        draw_bounds(axis, bounds)
    return figure


def probe_panels(probes: Sequence[Mapping[str, Any]]) -> list[ProbePanel]:
    """The score, then each measure that is judged, the linear probe of a task with its other probes, then the drift."""
    keys = dict.fromkeys(key for row in probes for key, value in row.items() if isinstance(value, int | float))
    panels = []
    for key in sorted(keys, key=lambda key: key != PROBE + SCORE):  # stable: the score first
        name = key.removeprefix(PROBE)
        judged = name == SCORE or measure_of(name).margin is not None
        if judged and not name.startswith(NETWORKS) and not any(kind in key for kind in _BESIDE_LINEAR):
            panels.append(_probe_panel(keys, key))
    drift = [(key, key.removeprefix(f"{PROBE}cka_")) for key in keys if key.startswith(f"{PROBE}cka_")]
    return [*panels, ProbePanel("likeness to step 0 (CKA)", drift, percent=False)] if drift else panels


def _probe_panel(keys: Collection[str], key: str) -> ProbePanel:
    name = key.removeprefix(PROBE)
    networks = {network: f"{PROBE}{network}_{name}" for network in NETWORKS}
    beside = [(key.replace("_linear_", kind), label) for kind, label in _BESIDE_LINEAR.items()]
    beside += [(other, network) for network, other in networks.items()]
    others = [(other, label) for other, label in beside if other != key and other in keys]
    shipped = next((network for network, other in networks.items() if other not in keys), "")
    measure = measure_of(name)
    return ProbePanel(measure.words, [(key, "linear" if "_linear_" in key else shipped), *others], measure.percent)


def _draw_probes(axis: Any, probes: Sequence[Mapping[str, Any]], panel: ProbePanel) -> None:
    factor = 100 if panel.percent else 1
    for place, (key, label) in enumerate(panel.lines):
        points = [(row["step"], factor * row[key]) for row in probes if row.get(key) is not None]
        style = {"color": _PROBE_LINE, "linewidth": 1.8} if place == 0 else {"color": _OTHER_LINE, "linewidth": 1.2}
        dashes = "-" if place < 2 else ":"
        axis.plot(*zip(*points, strict=True), linestyle=dashes, marker="o", markersize=3, label=label, **style)
    start = probes[0].get(panel.lines[0][0])
    if start is not None:
        draw_level(axis, factor * start, "step 0", ALARM)
    widen(axis, percent=panel.percent, scale=factor)
    if len(panel.lines) > 1:
        axis.legend(fontsize=7, frameon=False, loc="best", labelcolor=SOFT)
    style_axis(axis, panel.title, size=10)
