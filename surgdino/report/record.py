"""A finished (or stopped) run as the report sees it: everything its folder says, read once and never computed anew."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from surgdino.errors import SurgdinoError
from surgdino.report.curves import read_metrics

CONFIG, ENVIRONMENT, METRICS, RESULTS, DATA = (
    "config.yaml",
    "environment.json",
    "metrics.jsonl",
    "results.json",
    "data.json",
)
PER_OPERATION = "per_operation.csv"


@dataclass(frozen=True)
class RunRecord:
    """What a run folder holds.

    Attributes:
        folder: the run folder.
        config: every setting, resolved.
        environment: versions, command, data hash.
        model: what checkpoint/model.json says; empty where no checkpoint was written yet.
        rows: the lines of metrics.jsonl.
        data: what data.json says of the frames; empty for runs that write none.
        results: what results.json says; None for a pretraining run.
        per_operation: the rows of per_operation.csv.
    """

    folder: Path
    config: Mapping[str, Any]
    environment: Mapping[str, Any]
    model: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    data: Mapping[str, Any] = field(default_factory=dict)
    results: Mapping[str, Any] | None = None
    per_operation: Sequence[Mapping[str, str]] = ()

    @property
    def name(self) -> str:
        """What people call the run: its folder's name."""
        return self.folder.resolve().name

    @property
    def windows(self) -> list[Mapping[str, Any]]:
        """The lines of training."""
        return [row for row in self.rows if "loss" in row]

    @property
    def warnings(self) -> list[tuple[int, str]]:
        """(step, sentence) of everything the run said in words."""
        return [(row["step"], row["warning"]) for row in self.rows if "warning" in row]


def read_run(folder: Path) -> RunRecord:
    """Read a run folder.

    Raises:
        SurgdinoError: not a run folder, or one of its files is damaged.
    """
    if not (folder / CONFIG).is_file():
        found = "no such folder" if not folder.is_dir() else f"no {CONFIG}"
        raise SurgdinoError(
            "not a run folder", file=folder, expected=f"{CONFIG} and {METRICS}", found=found, fix="give a run.dir"
        )
    metrics = folder / METRICS
    return RunRecord(
        folder=folder,
        config=_yaml(folder / CONFIG),
        environment=_json(folder / ENVIRONMENT) or {},
        model=_json(folder / "checkpoint" / "model.json") or {},
        rows=read_metrics(metrics) if metrics.is_file() else [],
        data=_json(folder / DATA) or {},
        results=_json(folder / RESULTS),
        per_operation=_csv(folder / PER_OPERATION),
    )


def _yaml(path: Path) -> Mapping[str, Any]:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise SurgdinoError("damaged", file=path, found=str(error).splitlines()[0]) from error


def _json(path: Path) -> Any:
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SurgdinoError(
            "not valid JSON", file=path, found=error, fix="run the command again to write it"
        ) from error


def _csv(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))
