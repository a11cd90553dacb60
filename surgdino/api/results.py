"""What the verbs give back in Python: where it lies, and its figures, each with its protocol and its interval."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from surgdino.errors import SurgdinoError, nearest
from surgdino.exit_code import ExitCode

if TYPE_CHECKING:
    from surgdino.curation.table import Curation
    from surgdino.datasets.manifest import Manifest, Problem
    from surgdino.engine.probing.report import Change
    from surgdino.verbs.predict import PredictedVideo

_UNITS = {"fraction": "", "pixels": " px"}


@dataclass(frozen=True)
class Result:
    """What every verb gives back.

    Attributes:
        ok: False where something was found wrong, as exit code 1 says it in the shell.
        folder: of the run, or of what was written; None where there is none.
        written: what it is (`report`, `results`, `curves`, `picture`, ...) -> where it is.
        warnings: the sentences that the command warns of, in their order.
    """

    ok: bool
    folder: Path | None
    written: Mapping[str, Path]
    warnings: tuple[str, ...]

    @property
    def report(self) -> Path | None:
        """The HTML page."""
        return self.written.get("report")

    @classmethod
    def of(cls, ended: ExitCode, warnings: Sequence[str]) -> Self:
        """From how a verb ended, and what it warned of."""
        return cls(not ended, ended.folder, ended.written, tuple(warnings), **cls._more(ended))

    @classmethod
    def _more(cls, ended: ExitCode) -> dict[str, Any]:
        """The values of the subclass's own fields."""
        return {}

    @property
    def _place(self) -> Path:
        assert self.folder is not None
        return self.folder


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
        unit = _UNITS.get(self.unit, f" {self.unit}")
        interval = "" if math.isnan(self.low) else f" (95 % interval {self.low:.4f} to {self.high:.4f})"
        return f"{self.protocol} {self.name} {self.value:.4f}{unit}{interval}"


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
        _number(row["value"]),
        row.get("unit") or "fraction",
        _number(row.get("std_over_operations")),
        _number(low),
        _number(high),
        row["operations"],
        {operation: _number(value) for operation, value in row["per_operation"].items()},
        _number(row.get("std_over_folds")),
        _number(row.get("std_over_seeds")),
    )


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


@dataclass(frozen=True)
class FinetuneResult(ScoredResult):
    """A fine-tuning, or several folds and seeds of one in a folder.

    Attributes:
        status: `finished`, or `stopped` by a signal with all that is needed to continue; then there are no figures.
    """

    status: str

    @property
    def checkpoint(self) -> Path:
        """The folder for `surgdino.load`, `evaluate` and `predict`; several runs have one in each run's folder."""
        return self._place / "checkpoint"

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """What was logged on the way: a mapping a line of metrics.jsonl."""
        return _metrics(self._place)

    @classmethod
    def _more(cls, ended: ExitCode) -> dict[str, Any]:
        return {**super()._more(ended), "status": ended.found}


@dataclass(frozen=True)
class PretrainResult(Result):
    """A pretraining.

    Attributes:
        status: `finished`, `stopped` by a signal with its state saved, or `already finished` before this call.
        step, steps: optimiser steps done, and asked for.
        first, last: the loss terms, means over the first and the last logged window.
        changes: what was measured of the backbone at step 0 and at the end; empty where nothing was.
        best_step: at which the probe was best; None where nothing could choose.
    """

    status: str
    step: int
    steps: int
    first: Mapping[str, float]
    last: Mapping[str, float]
    changes: tuple[Change, ...]
    best_step: int | None

    @property
    def checkpoint(self) -> Path:
        """The folder with the adapted backbone."""
        return self._place / "checkpoint"

    @property
    def best(self) -> Path | None:
        """The folder with the backbone that the probe liked best; None where nothing chose."""
        return self._place / "best" if (self._place / "best").is_dir() else None

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """What was logged on the way: a mapping a line of metrics.jsonl."""
        return _metrics(self._place)

    @classmethod
    def _more(cls, ended: ExitCode) -> dict[str, Any]:
        found = ended.found
        own = {key: getattr(found, key) for key in ("status", "step", "steps", "first", "last")}
        best = found.probes.best_step
        return {**own, "changes": tuple(found.probes.changes), "best_step": best if best >= 0 else None}


def _metrics(folder: Path) -> list[dict[str, Any]]:
    from surgdino.report.record import read_metrics

    return read_metrics(folder / "metrics.jsonl")


@dataclass(frozen=True)
class PredictResult(Result):
    """Predictions of videos.

    Attributes:
        videos: what was written of each, in the order in which they were named.
    """

    videos: tuple[PredictedVideo, ...]

    @classmethod
    def _more(cls, ended: ExitCode) -> dict[str, Any]:
        return {"videos": ended.found}


@dataclass(frozen=True)
class Measured:
    """A value with its 95 % interval over operations (NaN where there is none), and by operation."""

    value: float
    low: float
    high: float
    per_operation: Mapping[str, float]


@dataclass(frozen=True)
class BenchmarkRow:
    """One measure of all backbones.

    Attributes:
        dataset, evaluation, labels, measure, unit: what was measured, on what.
        better: `higher` or `lower`; None where neither is.
        values: backbone -> its value.
        changes: backbone -> its difference to the first one.
    """

    dataset: str
    evaluation: str
    labels: str | None
    measure: str
    unit: str
    better: str | None
    values: Mapping[str, Measured]
    changes: Mapping[str, Measured]


@dataclass(frozen=True)
class BenchmarkResult(Result):
    """Backbones side by side.

    Attributes:
        rows: every measure.
        failed: evaluation or dataset -> why it gave nothing.
        unused: sentences on what was left out.
        content: all that results.json says.
    """

    rows: tuple[BenchmarkRow, ...]
    failed: Mapping[str, str]
    unused: tuple[str, ...]
    content: Mapping[str, Any]

    @classmethod
    def _more(cls, ended: ExitCode) -> dict[str, Any]:
        from surgdino.report.record import read_run

        assert ended.folder is not None
        content = read_run(ended.folder).benchmark
        assert content is not None  # it was written just now
        keys = ("dataset", "evaluation", "labels", "measure", "unit", "better")
        rows = tuple(
            BenchmarkRow(
                **{key: row[key] for key in keys}, values=_measured(row["values"]), changes=_measured(row["changes"])
            )
            for row in content["rows"]
        )
        return {"rows": rows, "failed": content["failed"], "unused": tuple(content["unused"]), "content": content}


def _measured(values: Mapping[str, Any]) -> dict[str, Measured]:
    found = {}
    for name, each in values.items():
        low, high = map(_number, each["interval_95"])
        by_operation = {operation: _number(value) for operation, value in each["per_operation"].items()}
        found[name] = Measured(_number(each["value"]), low, high, by_operation)
    return found


@dataclass(frozen=True)
class CurateResult(Result):
    """A curation.

    Attributes:
        curation: the decision on every frame, as arrays.
        counts: reason -> frames that were left out for it; `""` -> those that are kept.
    """

    curation: Curation
    counts: Mapping[str, int]

    @classmethod
    def _more(cls, ended: ExitCode) -> dict[str, Any]:
        return {"curation": ended.found, "counts": dict(ended.found.counts())}


@dataclass(frozen=True)
class VerifyResult(Result):
    """A folder against its dataset's card; `ok` where there are no errors.

    Attributes:
        manifest: the videos, their labels and all problems.
    """

    manifest: Manifest

    @property
    def errors(self) -> list[Problem]:
        """What must be mended; `problem.error().line()` is a sentence."""
        return list(self.manifest.errors)

    @classmethod
    def _more(cls, ended: ExitCode) -> dict[str, Any]:
        return {"manifest": ended.found}


@dataclass(frozen=True)
class ExportResult(Result):
    """A backbone for another program.

    Attributes:
        difference: the largest of any feature, as a share of the largest feature.
    """

    difference: float

    @classmethod
    def _more(cls, ended: ExitCode) -> dict[str, Any]:
        return {"difference": ended.found}


@dataclass(frozen=True)
class MergeResult(Result):
    """Averaged weights; `folder` is for `surgdino.load`.

    Attributes:
        alpha: the share of the adapted weights.
    """

    alpha: float

    @classmethod
    def _more(cls, ended: ExitCode) -> dict[str, Any]:
        return {"alpha": ended.found}


@dataclass(frozen=True)
class CompareResult(Result):
    """Two runs side by side.

    Attributes:
        verdict: which is better on the operations that both were measured on.
    """

    verdict: str

    @classmethod
    def _more(cls, ended: ExitCode) -> dict[str, Any]:
        return {"verdict": ended.found}


@dataclass(frozen=True)
class ShareResult(Result):
    """What may leave the house, in `folder`.

    Attributes:
        left_out: file or folder of the run -> why it stays.
    """

    left_out: Mapping[str, str]

    @classmethod
    def _more(cls, ended: ExitCode) -> dict[str, Any]:
        return {"left_out": ended.found}
