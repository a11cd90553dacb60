"""What the sheets of a curation share: the curation that `data.curation` names, its frames in the store, a grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from surgdino.curation.table import Curation, read_curation
from surgdino.errors import SurgdinoError
from surgdino.frames.store import FrameStore
from surgdino.inputs.curated import places_in
from surgdino.report.sheet import MARGIN, SOFT, Sheet, fitted
from surgdino.runs.folder import recorded_mode
from surgdino.runs.names import Pseudonyms, settings_of
from surgdino.show.frames import ShowConfig

CELL, _GAP, HEAD = 190, 10, 130


@dataclass(frozen=True)
class Curated:
    """A curation, and the position of each of its frames in the store, int64 [n]."""

    curation: Curation
    store: FrameStore
    place: np.ndarray

    @classmethod
    def of(cls, config: ShowConfig, store: FrameStore) -> Curated:
        """Of the folder in `data.curation`."""
        if config.data is None or config.data.curation is None:
            raise SurgdinoError("which curation?", fix="add data.root=... data.curation=FOLDER, of surgdino curate")
        folder, store = config.data.curation, store.select(flagged=True)
        curation = read_curation(folder)
        names = Pseudonyms.open(recorded_mode(settings_of(folder).get("run")), config.data.store)
        place = places_in(store, curation, names)
        if (place < 0).all():
            fix = "use the data settings that it was made with"
            raise SurgdinoError("the curation is of other frames", file=folder, fix=fix)
        return cls(curation, store, place)

    def picture(self, row: int) -> np.ndarray:
        """The frame, as large as a cell."""
        return fitted(self.store.read(int(self.place[row])), CELL, CELL)

    def rows_of(self, sheet: Sheet, strips: Sequence[tuple[str, Sequence[int]]]) -> None:
        """Draw strips of frames, a title over each."""
        for k, (title, rows) in enumerate(strips):
            top = HEAD + k * (CELL + 44)
            sheet.words(MARGIN, top - 8, title, size=14, colour=SOFT)
            for column, row in enumerate(rows):
                sheet.picture(MARGIN + column * (CELL + _GAP), top, self.picture(row))


def sheet_for(strips: Sequence[tuple[str, Sequence[int]]]) -> Sheet:
    """An empty sheet with room for them."""
    columns = max((len(rows) for _, rows in strips), default=1)
    return Sheet(max(2 * MARGIN + columns * (CELL + _GAP), 900), HEAD + max(len(strips), 1) * (CELL + 44) + MARGIN)
