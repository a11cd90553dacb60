"""Pictures of a curation: what its clusters show, and what went for which reason; for pages that may hold frames."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from surgdino.curation.table import Curation
from surgdino.report.blocks import Block, Heading, Paragraph, Picture, Pictures, picture
from surgdino.report.record import RunRecord
from surgdino.report.sections import Section

_SIDE, _COLUMNS, _CLUSTERS, _STRIPS, _SHEET = 160, 8, 48, 4, 24


class Gallery(Section):
    """Contact sheets from the frames themselves.

    Args:
        read: position in the store -> uint8 [H, W, 3] RGB.
        places: int64 [n], the position of each frame of the curation, -1 where it is not there.
    """

    id, title, order = "gallery", "Frames", 6

    def __init__(self, curation: Curation, read: Callable[[int], np.ndarray], places: np.ndarray) -> None:
        self.curation, self.read, self.places = curation, read, places

    def of_run(self, record: RunRecord) -> list[Block]:
        """A picture a cluster, what is kept, and for each reason what went."""
        text = "These are frames of patients. Handle this file as patient data."
        blocks: list[Block] = [Paragraph(text, note=True), *self._clusters()]
        for reason, count in sorted(self.curation.counts(), key=lambda each: each[0] != ""):
            share = f"{count:,} frames, {100 * count / len(self.curation):.1f} %"
            blocks.append(Heading(f"{reason.capitalize() or 'Kept'}: {share}"))
            blocks += self._of_reason(np.flatnonzero((self.curation.reason == reason) & (self.places >= 0)))
        return blocks

    def _clusters(self) -> list[Block]:
        rows = np.array(self.curation.facts.get("medoids", ()), np.int64)
        if not len(rows):
            return []
        coarse = self.curation.levels[-1]
        counts = np.bincount(coarse, minlength=len(rows))
        kept = np.bincount(coarse[self.curation.keep], minlength=len(rows))
        largest = [k for k in np.argsort(-counts, kind="stable").tolist() if rows[k] >= 0 and self.places[rows[k]] >= 0]
        shown = [self._picture(rows[k], f"{kept[k]:,} of {counts[k]:,} kept") for k in largest[:_CLUSTERS]]
        text = f"The frame in the middle of each of the {len(shown)} largest of {len(largest)} clusters."
        return [Heading("What the coarsest clusters show"), Paragraph(text, note=True), Pictures(shown, _COLUMNS)]

    def _of_reason(self, rows: np.ndarray) -> list[Block]:
        """A sheet of frames; of duplicates strips, each with the frame that stands for the others at its left."""
        group = self.curation.group
        if not len(rows) or (group[rows] == rows).any():
            return [Pictures([self._picture(row) for row in _evenly(rows, _SHEET)], _COLUMNS)]
        strips = []
        found, counts = np.unique(group[rows], return_counts=True)
        for first in _evenly(found[np.argsort(-counts, kind="stable")], _STRIPS):
            others = _evenly(rows[group[rows] == first], _COLUMNS - 1)
            strips.append(Pictures([self._picture(row) for row in [first, *others] if self.places[row] >= 0], _COLUMNS))
        text = (
            f"Each of {len(found):,} frames stands for {len(rows) / len(found):.1f} others on average. Left: such a "
            "frame, right: some of those it stands for; from the largest group to the smallest."
        )
        return [Paragraph(text, note=True), *strips]

    def _picture(self, row: int, caption: str = "") -> Picture:
        video = self.curation.videos[self.curation.video_of[row]]
        image = self.read(int(self.places[row]))
        scale = _SIDE / max(image.shape[:2])
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        return picture(small, caption or f"{video} {self.curation.time[row]:.0f} s")


def _evenly(rows: np.ndarray, count: int) -> list[int]:
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int))].tolist()
