"""What of a task needs no model: all that papers report of it in one call, and scores of two folders of files.

`finetune`, `evaluate` and `score` all print what comes from here. HD95 alone imports MONAI, and torch with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from surgdino import discovery
from surgdino.errors import SurgdinoError
from surgdino.metrics.scores import ScoreRequest, TaskScores, chosen
from surgdino.tasks import PACKAGE, SCORE, task_names
from surgdino.tasks.scoring.folders import Folders


class Scoring:
    """How a task's predictions are scored: a subclass in `tasks/NAME/score.py`. This one scores nothing.

    Attributes:
        PROTOCOLS: names of the task's protocols, `<task>/<protocol>`.
    """

    PROTOCOLS: tuple[str, ...] = ()

    def panel(self, request: ScoreRequest) -> TaskScores:
        """Every number of the protocols that the request names, with its spread and its interval over operations."""
        raise NotImplementedError("a task without a panel overrides Task.scores")

    def read_and_score(self, folders: Folders) -> TaskScores:
        """Read both folders and score them; `score_folders` has checked the protocol."""
        raise SurgdinoError("this task's predictions are not scored from files", fix="use surgdino evaluate")

    def scores(self, request: ScoreRequest) -> TaskScores:
        """The panel of what is labelled: frames that the truth marks with `unlabelled` are left out on both sides.

        Raises:
            SurgdinoError: an unknown protocol, one asked for by name that lacks what it needs, or videos, shapes or
                values that do not fit.
        """
        return self.panel(request if request.unlabelled is None else _labelled(request))

    def score_folders(self, folders: Folders) -> TaskScores:
        """Score `folders.predictions` against `folders.truth`.

        Raises:
            SurgdinoError: no such protocol, files that cannot be read, or sides that do not fit.
        """
        if self.PROTOCOLS:
            chosen(folders.protocol, self.PROTOCOLS, ())  # refuses a mistyped name before any file is read
        return self.read_and_score(folders)


def open_scoring(task: str) -> Scoring:
    """The scoring of a task, without its model and without torch.

    Raises:
        SurgdinoError: no such task; the nearest is named.
    """
    if task in task_names() and task not in discovery.names(PACKAGE, SCORE):
        return Scoring()
    module = discovery.load(PACKAGE, task, "task", SCORE)
    own = [kind for kind in vars(module).values() if isinstance(kind, type) and kind.__module__ == module.__name__]
    return next((kind() for kind in own if issubclass(kind, Scoring)), Scoring())


def _labelled(request: ScoreRequest) -> ScoreRequest:
    """The request without the frames that the truth marks as unlabelled, and without videos that have no others."""
    mark, truths, notes = request.unlabelled, request.truths, list(request.notes)
    known = {video: (np.asarray(truth) != mark).reshape(len(truth), -1).all(1) for video, truth in truths.items()}
    empty = [video for video, kept in known.items() if not kept.any()]
    if empty:
        notes.append(f"{len(empty)} videos without a labelled frame were left out, the first is {empty[0]}")

    def kept_of(values: Mapping[str, Any], side: str) -> dict[str, np.ndarray]:
        for video, kept in known.items():
            if video in values and len(values[video]) != len(kept):
                what = f"ground truth and {side} differ in length"
                raise SurgdinoError(what, place=video, expected=len(kept), found=len(values[video]))
        return {v: np.asarray(a)[known[v]] if v in known else a for v, a in values.items() if v not in empty}

    heads = {component: kept_of(values, f"head {component}") for component, values in (request.heads or {}).items()}
    return replace(
        request,
        truths=kept_of(truths, "ground truth"),
        predictions=kept_of(request.predictions, "prediction"),
        heads=heads or request.heads,
        frames=kept_of(request.frames, "list of frames") if request.frames else request.frames,
        notes=notes,
    )
