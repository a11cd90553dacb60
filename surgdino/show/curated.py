"""What the sheets of a curation share: the curation that `data.curation` names, its frames in the store, strips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from surgdino.curation.table import Curation, read_curation
from surgdino.errors import SurgdinoError
from surgdino.frames.store import FrameStore
from surgdino.inputs.curated import places_in
from surgdino.report.sheet import MARGIN, SOFT, Sheet, fitted
from surgdino.show.frames import ShowConfig

_CELL, _GAP, _TITLE, _HEAD, _LEAST = 190, 10, 40, 100, 900


@dataclass(frozen=True)
class Curated:
    """A curation, and the position of each of its frames in the store, int64 [n]."""

    curation: Curation
    store: FrameStore
    place: np.ndarray

    @classmethod
    def of(cls, config: ShowConfig, store: FrameStore) -> Curated:
        """Of the folder in `data.curation`, whose frames `store` has."""
        if config.data is None or config.data.curation is None:
            raise SurgdinoError("which curation?", fix="add data.curation=FOLDER, of surgdino curate")
        curation = read_curation(config.data.curation)
        return cls(curation, store, places_in(store, curation))

    def sheet(self, title: str, subtitle: str, strips: Sequence[tuple[str, Sequence[int]]]) -> Sheet:
        """Strips of frames, rows of the curation, each under its own title."""
        pictures = [[fitted(self.store.read(int(self.place[row])), _CELL, _CELL) for row in rows] for _, rows in strips]
        heights = [_TITLE + max(len(each) for each in strip) for strip in pictures]
        columns = max(map(len, pictures), default=0)
        sheet = Sheet(max(2 * MARGIN + columns * (_CELL + _GAP), _LEAST), _HEAD + sum(heights) + MARGIN)
        sheet.heading(title, subtitle)
        for (name, _), strip, top in zip(strips, pictures, np.cumsum([_HEAD, *heights[:-1]]).tolist(), strict=True):
            sheet.words(MARGIN, top + _TITLE - 10, name, size=14, colour=SOFT)
            for column, each in enumerate(strip):
                sheet.picture(MARGIN + column * (_CELL + _GAP), top + _TITLE, each)
        return sheet
