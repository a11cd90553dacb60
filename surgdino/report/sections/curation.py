"""A curation: what went and why, how alike frames of these data are, who has how much before and after."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from surgdino.curation.table import Curation
from surgdino.report.blocks import Block, Charts, Heading, Paragraph, Table
from surgdino.report.charts import scatter_chart
from surgdino.report.record import RunRecord
from surgdino.report.sections import Section

_OPERATIONS = 40  # rows of the table


class CurationSection(Section):
    """What curation.parquet says; left out for other runs."""

    id, title, order = "curation", "Which frames are kept", 5

    def of_run(self, record: RunRecord) -> list[Block]:
        """Reasons, likeness, clusters, operations, and a map."""
        curation = record.curation
        if curation is None:
            return []
        return [_reasons(curation), *_likeness(curation), *_clusters(curation), *_operations(curation), *_map(curation)]


def _reasons(curation: Curation) -> Table:
    names, counts = np.unique(curation.reason.astype(str), return_counts=True)
    order = np.argsort(-counts)
    rows = [[names[k] or "kept", f"{counts[k]:,}", f"{100 * counts[k] / len(curation):.1f} %"] for k in order]
    strong = frozenset(place for place, k in enumerate(order) if not names[k])
    caption = "The first reason that holds. Duplicates stand for the frame that is kept of their group."
    return Table(("frames", "number", "share"), rows, caption, frozenset({1, 2}), strong)


def _likeness(curation: Curation) -> list[Block]:
    found = curation.facts.get("calibration") or {}
    rows = [[name, *(f"{value:.3f}" for value in values)] for name, values in found.items() if values]
    if not rows:
        return []
    used = ", ".join(f"{name} {value:.3f}" for name, value in (curation.facts.get("thresholds") or {}).items())
    caption = f"Cosines of random pairs. Thresholds used: {used or 'none'}."
    heads = ("frames apart by", "5 % below", "median", "95 % below")
    return [Heading("How alike frames of these data are"), Table(heads, rows, caption, frozenset({1, 2, 3}))]


def _clusters(curation: Curation) -> list[Block]:
    even = curation.facts.get("evenness")
    if not even or not curation.levels:
        return []
    sizes = " > ".join(str(int(level.max()) + 1) for level in curation.levels)
    text = (
        f"Clusters of each level, the finest first: {sizes}. Entropy over the coarsest as a share of the largest "
        f"possible: {even[0]:.2f} of all frames, {even[1]:.2f} of what is drawn; at 1 all count alike."
    )
    return [Heading("Clusters"), Paragraph(text)]


def _operations(curation: Curation) -> list[Block]:
    names, of = np.unique(np.array(curation.operations), return_inverse=True)
    of_frame = of[curation.video_of]
    before = np.bincount(of_frame, minlength=len(names))
    after = np.bincount(of_frame, curation.weight, minlength=len(names))
    kept = np.bincount(of_frame[curation.keep], minlength=len(names))
    order = np.argsort(-before, kind="stable")
    shares = (100 * before / before.sum(), 100 * after / after.sum())
    rows = [
        [names[k], f"{before[k]:,}", f"{kept[k]:,}", *(f"{share[k]:.1f} %" for share in shares)]
        for k in order[:_OPERATIONS]
    ]
    rest = f" The {len(names) - _OPERATIONS} smaller ones are left out here." if len(names) > _OPERATIONS else ""
    caption = f"Share before: of all frames; after: of what training draws.{rest}"
    heads = ("operation", "frames", "kept", "share before", "share after")
    return [Heading("Operations"), Table(heads, rows, caption, frozenset({1, 2, 3, 4}))]


def _map(curation: Curation) -> list[Block]:
    found = curation.facts.get("map") or {}
    rows, points = np.array(found.get("rows", ()), np.int64), np.array(found.get("xy", ()), float)
    if len(rows) < 3 or rows.max() >= len(curation):
        return []
    kept = np.where(curation.keep[rows], "kept", "left out")
    operations = np.array(curation.operations)[curation.video_of[rows]]
    charts = [_coloured("By operation", points, operations), _coloured("By decision", points, kept)]
    text = "Principal components of the features of some of the frames: near points look alike to the backbone."
    return [Heading("Map"), Paragraph(text, note=True), Charts(charts, wide=True)]


def _coloured(title: str, points: np.ndarray, names: Sequence[str] | np.ndarray) -> str:
    kinds, counts = np.unique(names, return_counts=True)
    largest = [str(kinds[k]) for k in np.argsort(-counts, kind="stable")[:5]]
    groups = {name: points[np.asarray(names) == name] for name in largest}
    if len(kinds) > len(largest):
        groups["others"] = points[~np.isin(names, largest)]
    return scatter_chart(title, groups)
