"""What each of the other verbs gives back in Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surgdino.api.result import Result, RunResult, number
from surgdino.exit_code import ExitCode

if TYPE_CHECKING:
    from surgdino.curation.table import Curation
    from surgdino.datasets.manifest import Manifest, Problem
    from surgdino.engine.probing.report import Change
    from surgdino.verbs.predict import PredictedVideo


@dataclass(frozen=True)
class PretrainResult(RunResult):
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
    def best(self) -> Path | None:
        """The folder with the backbone that the probe liked best; None where nothing chose."""
        return self._place / "best" if (self._place / "best").is_dir() else None

    @classmethod
    def _more(cls, ended: ExitCode) -> dict[str, Any]:
        found = ended.found
        own = {key: getattr(found, key) for key in ("status", "step", "steps", "first", "last")}
        best = found.probes.best_step
        return {**own, "changes": tuple(found.probes.changes), "best_step": best if best >= 0 else None}


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
        low, high = map(number, each["interval_95"])
        by_operation = {operation: number(value) for operation, value in each["per_operation"].items()}
        found[name] = Measured(number(each["value"]), low, high, by_operation)
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
