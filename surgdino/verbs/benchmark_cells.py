"""A cell of a benchmark's table: what its numbers depend on, and how it is measured, here or in a worker."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from surgdino.errors import SurgdinoError
from surgdino.evaluations.parts.evaluation import open_evaluation
from surgdino.evaluations.parts.given import Given
from surgdino.inputs.suite import Entry
from surgdino.runs.benchmark import Cell, Finished, found_of, write_finished
from surgdino.runs.names import Pseudonyms
from surgdino.tasks.features.elsewhere import TURN, Elsewhere, Recipe
from surgdino.tasks.labelled_frames import LabelledFrames

_FORMAT = 1


@dataclass(frozen=True)
class Job:
    """A cell that is to be measured; `identity` hashes all that its numbers depend on."""

    cell: Cell
    entry: Entry
    given: Given
    identity: str

    @classmethod
    def of(cls, cell: Cell, entry: Entry, given: Given) -> Job:
        """With its identity; a setting that is None came later, and changes nothing."""
        settings = {key: value for key, value in asdict(entry.evaluation.settings).items() if value is not None}
        own = [_FORMAT, entry.kind, settings, given.identity(entry.evaluation.compares, entry.evaluation.tabled)]
        return cls(cell, entry, given, hashlib.sha256(json.dumps(own, default=str).encode()).hexdigest()[:16])

    def sent(self, there: Elsewhere, size: int, folder: Path, names: Pseudonyms) -> tuple[Any, ...]:
        """The arguments of `measured_here`, for one of `size` workers."""
        given, entry = self.given, self.entry
        recipes = tuple(there.recipe(cache, size) for cache in (given.features, given.first))
        about = self.cell, entry.kind, asdict(entry.evaluation.settings), self.identity
        return *about, (given.frames, given.tested, given.learns), given.columns, recipes, folder, names


def measured(job: Job, folder: Path, names: Pseudonyms) -> None:
    """Measure a cell, and keep what was found in its file."""
    began, given = time.perf_counter(), job.given
    found = tuple(map(found_of, job.entry.evaluation.outcomes(given)))
    seconds = round(time.perf_counter() - began, 3)
    tested = len(set(given.operations[given.tested].tolist()))
    write_finished(job.cell.file(folder), Finished(job.identity, seconds, len(given.frames), tested, found), names)


def measured_here(
    cell: Cell,
    kind: str,
    section: dict[str, Any],
    identity: str,
    seen: tuple[LabelledFrames, np.ndarray, np.ndarray],
    columns: Mapping[str, Mapping[str, str]],
    recipes: tuple[Recipe, Recipe],
    folder: Path,
    names: Pseudonyms,
) -> None:
    """In a worker: measure a cell as the process that asked would."""
    with TURN:
        evaluation = open_evaluation(kind, section, f"evaluations.{cell.evaluation}")
        own, first = (recipe.cache() for recipe in recipes)
        entry, given = Entry(cell.evaluation, kind, evaluation, None), Given(*seen, own, first, columns)
        try:
            measured(Job(cell, entry, given, identity), folder, names)
        except SurgdinoError:
            raise
        except Exception as error:
            raise SurgdinoError(f"{type(error).__name__}: {error}") from error
