"""A curation: what went and why, how alike frames of these data are, who has how much before and after."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from surgdino.curation.table import RESEMBLES, Curation, coded
from surgdino.errors import first_of
from surgdino.report.blocks import Block, Charts, Folded, Heading, Paragraph, Table
from surgdino.report.charts import histogram_chart, scatter_chart
from surgdino.report.colours import LINE, class_colours, readable_name
from surgdino.report.forest import Forest, Row
from surgdino.report.record import RunRecord
from surgdino.report.sections import Section

_ROWS, _DRAWN, _NAMED = 40, 24, 5  # of a table, of a chart of shares, names in the map's legend
_GREY = "#c3cbd3"  # what steps back in a map
_Named = tuple[list[str], np.ndarray]  # names, and which of them each frame has


class CurationSection(Section):
    """What curation.parquet says; left out for other runs."""

    id, title, order = "curation", "Which frames are kept", 5

    def of_run(self, record: RunRecord) -> list[Block]:
        """Reasons, copies, likeness, clusters, operations, phases, and a map."""
        if (curation := record.curation) is None:
            return []
        names, of_video = coded(np.array(curation.operations, object))
        operations = names, of_video[curation.video_of]
        blocks = [
            _reasons(curation),
            *_against(curation, operations),
            *_copies(curation),
            *_likeness(curation),
            *_clusters(curation),
        ]
        blocks += _shares("Operations", "operation", curation, operations)
        if (phase := curation.phase) is not None:
            classes, of = coded(phase)
            phases = [readable_name(name) for name in classes], of
            blocks += _shares("Phases", "phase", curation, phases)
            return [*blocks, *_map(curation, operations, phases)]
        return [*blocks, *_map(curation, operations, None)]


def _reasons(curation: Curation) -> Table:
    rows = [[name or "kept", f"{n:,}", f"{100 * n / len(curation):.1f} %"] for name, n in curation.counts()]
    strong = frozenset(place for place, (name, _) in enumerate(curation.counts()) if not name)
    caption = "The first reason that holds. Duplicates stand for the frame that is kept of their group."
    return Table(("frames", "number", "share"), rows, caption, frozenset({1, 2}), strong)


def _against(curation: Curation, operations: _Named) -> list[Block]:
    facts = curation.facts.get("against")
    if not facts:
        return []
    text = f"The operations of {facts['of']} ({len(facts['operations'])}, {facts['frames']:,} frames) are left out"
    if facts["cosine"] is not None:
        text += (
            f", and all groups of frames that come as near as cosine {facts['cosine']:.3f} to one of theirs; the "
            f"nearest frame that stayed has {facts['nearest']:.3f}"
        )
    names, of = operations
    counts = np.bincount(of[curation.reason == RESEMBLES], minlength=len(names))
    if most := [f"{counts[k]:,} of {names[k]}" for k in np.argsort(-counts, kind="stable").tolist() if counts[k]]:
        text += f". These are {first_of(most, _DRAWN)}"
    return [Heading("What is tested on"), Paragraph(f"{text}.")]


def _copies(curation: Curation) -> list[Block]:
    found: dict[tuple[str, str], float] = {}
    for each in curation.facts.get("copies") or ():
        pair = each["copy"], each["of"]
        found[pair] = found.get(pair, 0.0) + each["to"] - each["from"]
    if not found:
        return []
    largest = sorted(found.items(), key=lambda each: -each[1])
    rows = [[copy, original, f"{seconds:,.0f}"] for (copy, original), seconds in largest[:_ROWS]]
    caption = f"By prints of their frames, whatever they are called.{_rest(len(found), 'pairs')}"
    heads = ("recording", "shows again what is in", "seconds")
    return [Heading("Recordings that show the same"), Table(heads, rows, caption, frozenset({2}))]


def _rest(count: int, what: str) -> str:
    return f" The {count - _ROWS} smaller {what} are left out here." if count > _ROWS else ""


def _likeness(curation: Curation) -> list[Block]:
    found, thresholds = curation.facts.get("calibration") or {}, curation.facts.get("thresholds") or {}
    rows = [[name, *(f"{value:.3f}" for value in values)] for name, values in found.items() if values]
    if not rows:
        return []
    used = ", ".join(f"{name} {value:.3f}" for name, value in thresholds.items())
    caption = f"Cosines of random pairs. Thresholds used: {used or 'none'}."
    heads = ("frames apart by", "5 % below", "median", "95 % below")
    blocks: list[Block] = [Heading("How alike frames of these data are")]
    if likeness := curation.facts.get("likeness"):
        title = "Frames apart by so much, and from which cosine on they count as the same"
        blocks.append(Charts([histogram_chart(title, likeness["edges"], likeness["shares"], thresholds)], wide=True))
    return [*blocks, Table(heads, rows, caption, frozenset({1, 2, 3}))]


def _clusters(curation: Curation) -> list[Block]:
    levels = curation.facts.get("entropy") or ()
    rows = [[str(k + 1), f"{n:,}", f"{a:.2f}", f"{b:.2f}"] for k, (n, a, b) in enumerate(levels)]
    if not rows:
        return []
    caption = (
        "Entropy of the frames over the clusters of a level, as a share of the largest possible: at 1 all clusters "
        "count alike. Before: all frames; after: what training draws."
    )
    heads = ("level", "clusters", "entropy before", "entropy after")
    return [Heading("Clusters"), Table(heads, rows, caption, frozenset({1, 2, 3}))]


def _shares(title: str, what: str, curation: Curation, names: _Named) -> list[Block]:
    """Who has which share of the frames before and after, without those whose name is empty."""
    kinds, of = names
    counted = np.array([kind != "" for kind in kinds])
    before = np.bincount(of, minlength=len(kinds)) * counted
    kept = np.bincount(of[curation.keep], minlength=len(kinds))
    after = np.bincount(of, curation.weight, minlength=len(kinds)) * counted
    first, then = before / max(before.sum(), 1), after / max(after.sum(), 1e-12)
    shares = list(zip(kinds, first.tolist(), then.tolist(), strict=True))
    order = [k for k in np.argsort(-before, kind="stable").tolist() if counted[k]]
    rows = [
        [name, f"{before[k]:,}", f"{kept[k]:,}", f"{100 * first:.1f} %", f"{100 * then:.1f} %"]
        for k, (name, first, then) in ((k, shares[k]) for k in order[:_ROWS])
    ]
    without = len(curation) - before.sum()
    unlabelled = f"{without:,} frames have no label. " if without else ""
    caption = f"{unlabelled}Share before: of all frames; after: of what training draws.{_rest(len(order), f'{what}s')}"
    heads = (what, "frames", "kept", "share before", "share after")
    lines = [
        Row(name, f"{100 * first:.1f} to {100 * then:.1f}", 100 * then, ring=100 * first)
        for name, first, then in (shares[k] for k in order[:_DRAWN])
    ]
    note = "Ring: before, of all frames. Point: after, of what training draws."
    chart = Forest(f"Share of each {what}, in %", [("", lines)], zero=0, note=note)
    table = Table(heads, rows, caption, frozenset({1, 2, 3, 4}))
    return [Heading(title), chart, Folded("all numbers", [table])]


def _map(curation: Curation, operations: _Named, phases: _Named | None) -> list[Block]:
    found = curation.facts.get("map") or {}
    rows, points = np.array(found.get("rows", ()), np.int64), np.array(found.get("xy", ()), float)
    if len(rows) < 3 or rows.max() >= len(curation):
        return []
    kept = np.where(curation.keep[rows], "kept", "left out")
    charts = [
        scatter_chart("By operation", _grouped(points, _names(operations, rows)), {"others": _GREY}),
        scatter_chart("By decision", _grouped(points, kept), {"kept": LINE, "left out": _GREY}),
    ]
    if phases is not None:
        groups = _grouped(points, np.array([name or "no label" for name in _names(phases, rows)]), named=10)
        colours = {**class_colours([name for name in groups if name != "no label"]), "no label": _GREY}
        charts.insert(1, scatter_chart("By phase", groups, colours))
    text = (
        f"By {found.get('by', 'PCA')} of the features of {len(rows):,} frames: near points look alike to the backbone."
    )
    return [Heading("Map"), Paragraph(text, note=True), Charts(charts, wide=True)]


def _names(names: _Named, rows: np.ndarray) -> np.ndarray:
    return np.array(names[0])[names[1][rows]]


def _grouped(points: np.ndarray, names: np.ndarray, named: int = _NAMED) -> Mapping[str, np.ndarray]:
    """Points by name, the smallest group last and so on top; beyond `named` of them the others together, first."""
    kinds, counts = np.unique(names, return_counts=True)
    largest = [str(kinds[k]) for k in np.argsort(-counts, kind="stable")]
    others = np.isin(names, largest[named:])
    groups = {"others": points[others]} if others.any() else {}
    return groups | {name: points[names == name] for name in largest[:named]}
