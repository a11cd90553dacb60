"""SAR-RARP50: a film or its frames, masks once a second, and what is done ten times a second."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from surgdino.datasets.adapters.masks import Masks
from surgdino.datasets.files import MOST_DIGITS, read_cells
from surgdino.datasets.manifest import FrameLabels, Labels, Problem
from surgdino.datasets.paired_pictures import Recording
from surgdino.errors import SurgdinoError

_ACTIONS = "action_discrete.txt"


class SarRarp50(Masks):
    """Masks, and actions of the kind `action`."""

    def more_labels(self, recordings: list[Recording]) -> list[Labels]:
        values = {}
        for each in recordings:
            path = each.folder / _ACTIONS
            try:
                if path.is_file():
                    values[each.video.id] = self._actions(path)
            except SurgdinoError as error:
                self.problems.append(Problem.of(error, "copy it again from the release"))
        return [Labels("action", self.card.actions, values)]

    def _actions(self, path: Path) -> FrameLabels:
        """Action of the frames that a file tells of, a row each: frame, action.

        Raises:
            SurgdinoError: another form, frames that do not ascend, or an action that is none.
        """
        rows = read_cells(path)
        for place, row in enumerate(rows, start=1):
            if len(row) != 2 or not all(cell.isdecimal() and len(cell) <= MOST_DIGITS for cell in row):
                expected, found = "a frame and an action, as in 000000006,0", ",".join(row)[:40]
                raise SurgdinoError("not an action", file=path, place=f"row {place}", expected=expected, found=found)
        if not rows:
            raise SurgdinoError("the file is empty", file=path, expected="a row a labelled frame")
        frames, actions = np.array(rows, np.int64).T
        if len(late := np.flatnonzero(np.diff(frames) <= 0)):
            what, wrong = "frames that do not ascend", int(late[0]) + 1
            expected, found = f"more than {frames[wrong - 1]}", str(frames[wrong])
        elif len(odd := np.flatnonzero(actions >= len(self.card.actions))):
            what, wrong = "an action that is none", int(odd[0])
            expected, found = f"0 to {len(self.card.actions) - 1}", str(actions[wrong])
        else:
            return FrameLabels(frames, actions)
        raise SurgdinoError(what, file=path, place=f"row {wrong + 1}", expected=expected, found=found)
