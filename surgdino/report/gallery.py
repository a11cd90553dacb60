"""Pictures of a curation: what its clusters show, and what went for which reason; for pages that may hold frames."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from surgdino.curation.table import Curation
from surgdino.report.blocks import Block, Heading, Paragraph, Picture, Pictures, picture
from surgdino.report.record import RunRecord
from surgdino.report.sections import Section

_SIDE, _COLUMNS, _CLUSTERS, _EACH = 160, 8, 48, 8


class Gallery(Section):
    """Contact sheets from the frames themselves.

    Args:
        read: row of the curation -> uint8 [H, W, 3] RGB.
        middles: rows, the frame nearest to the centre of each coarse cluster.
    """

    id, title, order = "gallery", "Frames", 6

    def __init__(self, curation: Curation, read: Callable[[int], np.ndarray], middles: np.ndarray) -> None:
        self.curation, self.read, self.middles = curation, read, middles

    def of_run(self, record: RunRecord) -> list[Block]:
        """One picture a cluster, then a strip for each reason."""
        blocks: list[Block] = [Paragraph("These are frames of patients. Handle this file as patient data.", note=True)]
        if len(self.middles):
            coarse = self.curation.levels[-1]
            counts = np.bincount(coarse, minlength=int(coarse.max()) + 1)
            middles = sorted(self.middles[self.middles >= 0].tolist(), key=lambda row: -counts[coarse[row]])[:_CLUSTERS]
            shown = [self._picture(row, f"{counts[coarse[row]]:,} frames") for row in middles]
            blocks += [Heading("What the coarsest clusters show"), Pictures(shown, _COLUMNS)]
        for reason in sorted({*self.curation.reason.tolist()}):
            rows = np.flatnonzero(self.curation.reason == reason)
            some = rows[np.unique(np.linspace(0, len(rows) - 1, _EACH).astype(int))]
            title = reason.capitalize() if reason else "Kept"
            blocks += [Heading(title), Pictures([self._picture(int(row)) for row in some], _COLUMNS)]
        return blocks

    def _picture(self, row: int, caption: str = "") -> Picture:
        video = self.curation.videos[self.curation.video_of[row]]
        image = self.read(row)
        scale = _SIDE / max(image.shape[:2])
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        return picture(small, caption or f"{video} {self.curation.time[row]:.0f} s")
