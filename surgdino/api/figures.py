"""Results that hold figures, each with its protocol, its interval and what it is on every operation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from surgdino.api.result import Result, RunResult, number
from surgdino.errors import SurgdinoError, nearest
from surgdino.exit_code import ExitCode
from surgdino.runs.results import in_words


@dataclass(frozen=True)
class Figure:
    """One number of a test.

    Attributes:
        name, protocol: what it is, and by which rules: `accuracy` under `phase/script`.
        value: a fraction of 0 to 1 unless `unit` says otherwise; NaN where it is undefined.
        unit: `fraction` or `pixels`.
        std: over operations; of several runs the mean's.
        low, high: the 95 % interval over operations; NaN where there are too few.
        operations: on which it is defined.
        per_operation: operation -> the number on it alone.
        std_over_folds, std_over_seeds: of several runs in one folder; NaN elsewhere.
    """

    name: str
    protocol: str
    value: float
    unit: str
    std: float
    low: float
    high: float
    operations: int
    per_operation: Mapping[str, float]
    std_over_folds: float = math.nan
    std_over_seeds: float = math.nan

    def __str__(self) -> str:
        """As the terminal says it: `accuracy 79.4 % (95 % interval 74.1 to 84.0), phase/script, 8 operations`."""
        return in_words(self.name, self.protocol, self.value, self.low, self.high, self.unit, self.operations)


@dataclass(frozen=True)
class ScoredResult(Result):
    """A test of predictions: of a fine-tuning, of `evaluate`, or of anyone's files with `score`.

    Attributes:
        task: `phase`, `tools`, ...
        headline: the figure that chooses models; None where nothing was tested.
        figures: all of them.
        notes: what a reader has to know beside the figures.
        leakage: the leak guard's stamp; None where all operations are known to be new, or nobody asked.
        content: all that results.json says, classes and confusions among it.
    """

    task: str | None
    headline: Figure | None
    figures: tuple[Figure, ...]
    notes: tuple[str, ...]
    leakage: str | None
    content: Mapping[str, Any]

    @property
    def by_protocol(self) -> dict[str, dict[str, Figure]]:
        """Protocol -> name -> figure."""
        found: dict[str, dict[str, Figure]] = {}
        for figure in self.figures:
            found.setdefault(figure.protocol, {})[figure.name] = figure
        return found

    @property
    def per_operation(self) -> list[dict[str, Any]]:
        """A row an operation and figure, for `pandas.DataFrame`: `operation`, `protocol`, `figure`, `value`."""
        return [
            {"operation": operation, "protocol": figure.protocol, "figure": figure.name, "value": value}
            for figure in self.figures
            for operation, value in figure.per_operation.items()
        ]

    def figure(self, name: str, protocol: str | None = None) -> Figure:
        """The figure of that name, in the headline's protocol unless another one is named.

        Raises:
            SurgdinoError: there is none; the nearest is named.
        """
        protocol = protocol or (self.headline.protocol if self.headline else "")
        tables = self.by_protocol
        if protocol not in tables:
            raise SurgdinoError(f"there is no protocol {protocol!r} here", fix=nearest(protocol, tables))
        if name not in tables[protocol]:
            raise SurgdinoError(f"there is no figure {name!r} under {protocol}", fix=nearest(name, tables[protocol]))
        return tables[protocol][name]

    @classmethod
    def _more(cls, ended: ExitCode) -> dict[str, Any]:
        from surgdino.metrics.arrays import as_json
        from surgdino.report.record import read_results
        from surgdino.runs.results import content_of

        path = ended.written.get("results")
        if path is not None:
            content = read_results(path)
        elif ended.found is not None and not isinstance(ended.found, str):
            content = as_json(content_of(ended.found.task, ended.found))  # of `score` without a folder
        else:
            return {"task": None, "headline": None, "figures": (), "notes": (), "leakage": None, "content": {}}
        figures = tuple(map(_figure, content["scores"]))
        wanted = content["headline"]["protocol"], content["headline"]["name"]
        headline = next((each for each in figures if (each.protocol, each.name) == wanted), None)
        stamp = (content.get("leakage") or {}).get("stamp")
        notes = tuple(content.get("notes", ()))
        return {
            "task": content["task"],
            "headline": headline,
            "figures": figures,
            "notes": notes,
            "leakage": stamp,
            "content": content,
        }


def _figure(row: Mapping[str, Any]) -> Figure:
    low, high = row["interval_95"]
    return Figure(
        row["name"],
        row["protocol"],
        number(row["value"]),
        row.get("unit") or "fraction",
        number(row.get("std_over_operations")),
        number(low),
        number(high),
        row["operations"],
        {operation: number(value) for operation, value in row["per_operation"].items()},
        number(row.get("std_over_folds")),
        number(row.get("std_over_seeds")),
    )


@dataclass(frozen=True)
class FinetuneResult(ScoredResult, RunResult):
    """A fine-tuning, or several folds and seeds of one in a folder.

    Attributes:
        status: `finished`, or `stopped` by a signal with all that is needed to continue; then there are no figures.
    """

    status: str

    @classmethod
    def _more(cls, ended: ExitCode) -> dict[str, Any]:
        return {**super()._more(ended), "status": ended.found}
