"""A benchmark: every measure of every backbone, the changes from the first one as a picture, and what it cost."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from surgdino.report.blocks import (
    Block,
    Bullets,
    Charts,
    Folded,
    Heading,
    Paragraph,
    Strip,
    Strips,
    Table,
    png_picture,
)
from surgdino.report.charts import Line, line_chart
from surgdino.report.evidence import between_backbones
from surgdino.report.forest import forest_of
from surgdino.report.record import RunRecord
from surgdino.report.sections import Section
from surgdino.wording import duration

Row = Mapping[str, Any]


class Benchmark(Section):
    """What results.json of a benchmark says; left out for other runs."""

    id, title, order = "benchmark", "Backbones side by side", 2

    def of_run(self, record: RunRecord) -> list[Block]:
        """A table and a picture a dataset, then what is missing or failed, then the cost."""
        results = record.benchmark
        if results is None:
            return []
        blocks: list[Block] = []
        for dataset, facts in results["datasets"].items():
            rows = [row for row in results["rows"] if row["dataset"] == dataset]
            if not rows:
                continue
            split = f", split {facts['split']}" if facts["split"] else ", each by what was learnt from others"
            tested = f"{facts['tested']} operation{'s' * (facts['tested'] != 1)} tested{split}."
            blocks += [Heading(dataset), Paragraph(tested, note=True)]
            heads, cells, tones = comparison({**results, "rows": rows})
            cells, tones = [row[1:] for row in cells], {(i, k - 1): tone for (i, k), tone in tones.items()}
            table = Table(heads[1:], cells, _CAPTION, frozenset(range(2, len(heads))), tones=tones)
            first, *others = results["backbones"]
            for name in others:
                own = [replace(j, group="") for j in between_backbones(results, name) if j.group == dataset]
                forest = forest_of(own, f"{name} against {first}")
                blocks += [forest] if forest else []
            blocks.append(Folded("all numbers", [table]) if others else table)
            blocks += _labels_saved(rows, list(results["backbones"]))
            blocks += _components(record.components.get(dataset, ()), list(results["backbones"]))
        for title, lines in (
            ("Left out", results["unused"]),
            ("Failed", [": ".join(pair) for pair in results["failed"].items()]),
        ):
            blocks += [Heading(title), Bullets(lines)] if lines else []
        return [*blocks, Folded("what it cost", [_cost(results)])]


_CAPTION = (
    "Shares in %. Behind a change its 95 % interval over operations, or below six operations every operation's change. "
    "Coloured: the interval excludes 0. Measures without an arrow describe the features and are no merit."
)
_ARROWS = {"higher": " \u2191", "lower": " \u2193", None: ""}


def comparison(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]], dict[tuple[int, int], str]]:
    """(heads, rows, tones) of the table: dataset, evaluation, measure, then a column a backbone; `tones` by row and
    column."""
    backbones = list(results["backbones"])
    rows, tones = [], {}
    for place, row in enumerate(results["rows"]):
        cells = [row["dataset"], _called(row), row["measure"] + _ARROWS[row["better"]]]
        for column, name in enumerate(backbones):
            cells.append(_cell(row, name))
            if tone := tone_of(row, name):
                tones[place, 3 + column] = tone
        rows.append(cells)
    return ["dataset", "evaluation", "measure", *backbones], rows, tones


def _called(row: Row) -> str:
    """`phase, linear`."""
    return f"{row['labels']}, {row['evaluation']}" if row["labels"] else row["evaluation"]


def tone_of(row: Row, backbone: str) -> str | None:
    """`better` or `worse` where the interval of the change excludes 0."""
    low, high = (row["changes"].get(backbone) or {}).get("interval_95") or (None, None)
    if low is None or high is None or row["better"] is None or low <= 0 <= high:
        return None
    return "better" if (low > 0) == (row["better"] == "higher") else "worse"


def _cell(row: Row, backbone: str) -> str:
    """`63.0`, or `63.0 (+1.8, 95 % +0.4 to +3.2)`, or with fewer operations `63.0 (+1.8: +0.5, +3.1)`."""
    found, change = row["values"].get(backbone), row["changes"].get(backbone)
    if found is None or found["value"] is None:
        return "-"
    share = row["unit"] == "fraction"
    value = f"{100 * found['value']:.1f}" if share else f"{found['value']:.3g}"
    if change is None or change["value"] is None:
        return value

    def signed(difference: float | None) -> str:
        return "-" if difference is None else f"{100 * difference:+.1f}" if share else f"{difference:+.3g}"

    low, high = change["interval_95"]
    each = list(change["per_operation"].values())
    if low is not None:
        return f"{value} ({signed(change['value'])}, 95 % {signed(low)} to {signed(high)})"
    return f"{value} ({signed(change['value'])}{': ' if each else ''}{', '.join(map(signed, each[:_FEW]))})"


_FEW = 5  # operations; of more there is an interval, where it can be computed


def _components(rows: Sequence[Mapping[str, Any]], backbones: Sequence[str]) -> list[Block]:
    """A strip an operation: what each backbone makes of the same frame."""
    strips = [
        Strip(
            row["operation"],
            [
                png_picture(base64.b64decode(row["pictures"][name]), name, pixels=True)
                for name in backbones
                if name in row["pictures"]
            ],
        )
        for row in rows
    ]
    text = (
        "The first three principal components of the patch features as red, green and blue, over frames of the "
        "operation without the black border, and turned towards the first backbone's. A backbone sees patches of equal "
        "colour as alike. These are no frames, but what is large in one can be made out."
    )
    return [Heading("Patch features as colours"), Paragraph(text, note=True), Strips(strips)] if rows else []


def _labels_saved(rows: Sequence[Row], backbones: Sequence[str]) -> list[Block]:
    """Of measures that several numbers of labelled operations taught: a picture each, what it takes to reach the first
    backbone with all labels, and every value."""
    curves: dict[tuple[str, ...], list[Row]] = {}
    for row in (row for row in rows if row["curve"]):
        curves.setdefault((row["evaluation"], row["labels"], row["curve"][0]), []).append(row)
    charts, saved, cells = [], [], []
    for (_, labels, measure), each in curves.items():
        title = f"{labels}: {measure}"
        points = {
            name: [(row["curve"][1], value) for row in each if (value := row["values"].get(name, {}).get("value"))]
            for name in backbones
        }
        lines = [Line(name, *zip(*found, strict=True)) for name, found in points.items() if found]
        charts.append(line_chart(title, lines, percent=True, along="labelled operations"))
        saved += [f"{title}: {line}" for line in _reached(points)]
        cells += [[title, str(row["curve"][1]), *(_each(row, name) for name in backbones)] for row in each]
    if not charts:
        return []
    caption = "Shares in %. In brackets the 95 % interval over operations, or below six every operation's own value."
    heads = ("measure", "operations that taught", *backbones)
    table = Table(heads, cells, caption, frozenset(range(1, len(heads))))
    return [Heading("Labelled operations"), Charts(charts), *([Bullets(saved)] if saved else []), table]


def _reached(points: Mapping[str, Sequence[tuple[int, float]]]) -> list[str]:
    """A sentence on each backbone but the first: how few operations teach it what the first one learns from all."""
    (first, own), *others = points.items()
    if not own:
        return []
    most, goal = own[-1]
    sentences = []
    for name, found in others:
        fewest = next((taught for taught, value in found if value >= goal), None)
        taught = f"is not reached by {name}" if fewest is None else f"is reached by {name} with {fewest}"
        sentences.append(f"what {first} learns from {most} ({100 * goal:.1f}) {taught}")
    return sentences


def _each(row: Row, backbone: str) -> str:
    """`63.0 (58.1, 67.9)`."""
    found = row["values"].get(backbone)
    if found is None or found["value"] is None:
        return "-"
    low, high = found["interval_95"]
    values = [100 * value for value in found["per_operation"].values() if value is not None]
    each = ", ".join(f"{v:.1f}" for v in values) if low is None else f"{100 * low:.1f} to {100 * high:.1f}"
    return f"{100 * found['value']:.1f} ({each})"


def _cost(results: Mapping[str, Any]) -> Table:
    """Seconds of every evaluation and of the features, a column a backbone."""
    backbones = list(results["backbones"])
    rows = []
    for (dataset, evaluation), cells in groupby(
        sorted(results["cost"], key=lambda c: (c["dataset"], c["evaluation"] != "features", c["evaluation"])),
        key=lambda cell: (cell["dataset"], cell["evaluation"]),
    ):
        each = list(cells)
        seconds = [sum(cell["seconds"] for cell in each if cell["backbone"] == name) for name in backbones]
        rows.append([dataset, evaluation, f"{max(cell['frames'] for cell in each):,}", *map(_time, seconds)])
    total = [sum(cell["seconds"] for cell in results["cost"] if cell["backbone"] == name) for name in backbones]
    rows.append(["all", "", "", *map(_time, total)])
    caption = "The time of each evaluation when it was measured, features aside; those are computed once and shared."
    heads = ("dataset", "evaluation", "frames", *backbones)
    return Table(heads, rows, caption, frozenset(range(2, len(heads))), frozenset({len(rows) - 1}))


def _time(seconds: float) -> str:
    return duration(seconds) if seconds >= 60 else f"{seconds:.1f} s"
