"""A run as the report sees it: what its folder says, read once; nothing is computed again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from surgdino.errors import SurgdinoError


@dataclass(frozen=True)
class RunRecord:
    """What a run folder holds.

    Attributes:
        folder: the run folder.
        config: every setting, resolved.
        environment: versions, command, data hash.
        model: checkpoint/model.json; empty where no checkpoint was written yet.
        rows: the lines of metrics.jsonl.
        data: data.json; empty for runs that write none.
        results: results.json; None for a pretraining run.
    """

    folder: Path
    config: Mapping[str, Any]
    environment: Mapping[str, Any]
    model: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    data: Mapping[str, Any] = field(default_factory=dict)
    results: Mapping[str, Any] | None = None

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.resolve().name

    @property
    def training_rows(self) -> list[Mapping[str, Any]]:
        """The lines of metrics.jsonl that training wrote, without probes and warnings."""
        return [row for row in self.rows if "loss" in row]

    @property
    def warnings(self) -> list[tuple[int, str]]:
        """(step, sentence) of every warning of the run."""
        return [(row["step"], row["warning"]) for row in self.rows if "warning" in row]

    def section(self, name: str) -> Mapping[str, Any]:
        """A section of the configuration, such as `train`; empty where the run has none."""
        return self.config.get(name) or {}


def read_run(folder: Path) -> RunRecord:
    """Read a run folder.

    Raises:
        SurgdinoError: not a run folder, or one of its files is damaged.
    """
    config = folder / "config.yaml"
    if not config.is_file():
        found = "no such folder" if not folder.is_dir() else "no config.yaml"
        raise SurgdinoError(
            "not a run folder", file=folder, expected="config.yaml and metrics.jsonl", found=found, fix="give a run.dir"
        )
    try:
        settings = yaml.safe_load(config.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise SurgdinoError("damaged", file=config, found=str(error).splitlines()[0]) from error
    return RunRecord(
        folder=folder,
        config=settings,
        environment=_json(folder / "environment.json") or {},
        model=_json(folder / "checkpoint" / "model.json") or {},
        rows=read_metrics(folder / "metrics.jsonl"),
        data=_json(folder / "data.json") or {},
        results=_json(folder / "results.json"),
    )


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl in order, without a last line that a kill cut short; none where there is no file."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def _json(path: Path) -> Any:
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SurgdinoError(
            "not valid JSON", file=path, found=error, fix="run the command again to write it"
        ) from error
