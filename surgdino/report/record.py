"""A run as the report sees it: what its folder says, read once; nothing is computed again."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from surgdino import console
from surgdino.curation.table import FILE as CURATION
from surgdino.curation.table import Curation, read_curation
from surgdino.engine.log import NAME as METRICS
from surgdino.engine.log import rows_of
from surgdino.errors import SurgdinoError
from surgdino.records import checked, read_json
from surgdino.yaml_files import read_settings


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
        benchmark: the same of a benchmark; None for other runs.
        curation: curation.parquet; None for other runs.
        components: components.json of a benchmark: dataset -> rows of pictures of patch features.
        left_out: a line on each file, or part of one, that did not hold what it should.
    """

    folder: Path
    config: Mapping[str, Any]
    environment: Mapping[str, Any]
    model: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    data: Mapping[str, Any] = field(default_factory=dict)
    results: Mapping[str, Any] | None = None
    left_out: Sequence[str] = ()
    curation: Curation | None = None
    benchmark: Mapping[str, Any] | None = None
    components: Mapping[str, Any] = field(default_factory=dict)

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
        values = self.config.get(name)
        return values if isinstance(values, Mapping) else {}


def read_run(folder: Path) -> RunRecord:
    """Read a run folder. A file that does not hold what it should is named in a line and left out, as if it were not
    there.

    Raises:
        SurgdinoError: not a run folder, or its config.yaml cannot be read.
    """
    config = folder / "config.yaml"
    if not config.is_file():
        found = "no such folder" if not folder.is_dir() else "no config.yaml"
        raise SurgdinoError(
            "not a run folder", file=folder, expected="config.yaml and metrics.jsonl", found=found, fix="give a run.dir"
        )
    settings, left_out = read_settings(config), []

    def read(kind: type[Any], *place: str) -> Any:
        path = folder.joinpath(*place)
        try:
            return _values(kind, path) if os.path.lexists(path) else None
        except SurgdinoError as error:
            left_out.append(f"left out of the report: {error.line()}")

    for name, values in list(settings.items()):
        if not isinstance(values, dict) and name in _SECTIONS:
            left_out.append(f"left out of the report: {config}, {name}: expected keys with values, found {values!r}")
            del settings[name]
    try:
        rows, odd = rows_of(folder / METRICS)
    except SurgdinoError as error:
        rows, odd = [], error.line()
    left_out += [f"left out of the report: {odd}"] if odd else []
    record = RunRecord(
        folder=folder,
        config=settings,
        environment=read(_Environment, "environment.json") or {},
        model=read(_Model, "checkpoint", "model.json") or {},
        rows=rows,
        data=read(_Data, "data.json") or {},
        results=None if "suite" in settings else read(_Results, RESULTS),
        benchmark=read(_Benchmark, RESULTS) if "suite" in settings else None,
        components=(read(_Components, COMPONENTS) or {}).get("datasets", {}),
        left_out=left_out,
        curation=read_curation(folder) if (folder / CURATION).is_file() else None,
    )
    for line in left_out:
        console.warn(line)
    return record


def read_results(path: Path) -> dict[str, Any]:
    """The numbers of a fine-tuned run.

    Raises:
        SurgdinoError: damaged; names the field.
    """
    return _values(_Results, path)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl in order, without what is no row; none where there is no file."""
    return rows_of(path)[0]


def _values(kind: type[Any], path: Path) -> dict[str, Any]:
    values = read_json(path, fix=_AGAIN)
    checked(kind, values, path, _AGAIN, more=True)
    return values


_AGAIN = "run the command again to write it"
RESULTS = "results.json"
COMPONENTS = "components.json"
_SECTIONS = ("dataset", "model", "method", "task", "augment", "data", "crops", "probe", "train", "hardware", "run")
_Number = float | None


# What the files hold as far as the report reads it; other keys may be there too.


@dataclass(frozen=True)
class _Environment:
    packages: dict[str, Any] | None = None
    command: str | None = None


@dataclass(frozen=True)
class _Method:
    name: str | None = None


@dataclass(frozen=True)
class _Leakage:
    stamp: str | None = None
    state: Literal["disjoint", "shared", "unknown"] | None = None  # results of before December 2026 have none
    apart: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Model:
    method: _Method | None = None
    created: str | None = None
    operations: tuple[str, ...] | None = None
    chosen_on: tuple[str, ...] | None = None
    probe_leakage: _Leakage | None = None


@dataclass(frozen=True)
class _Video:
    id: str
    operation: str
    frames: int
    left_out: dict[str, int]
    kind: str
    share: float


@dataclass(frozen=True)
class _Data:
    videos: tuple[_Video, ...] = ()
    left_out: dict[str, int] = field(default_factory=dict)
    set_aside: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Headline:
    name: str
    protocol: str
    value: _Number = None


@dataclass(frozen=True)
class _Score:
    name: str
    protocol: str
    value: _Number
    std_over_operations: _Number
    interval_95: tuple[_Number, _Number]
    operations: int
    per_operation: dict[str, _Number]
    unit: str | None = None
    # Of several runs together
    std_over_folds: _Number = None
    std_over_seeds: _Number = None
    mean_over_operations: _Number = None
    per_run: dict[str, _Number] = field(default_factory=dict)


@dataclass(frozen=True)
class _Classes:
    title: str
    protocol: str
    rows: dict[str, dict[str, _Number]]


@dataclass(frozen=True)
class _Confusion:
    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    unit: str

    def __post_init__(self) -> None:
        found = [len(row) for row in self.counts]
        if found != [len(self.columns)] * len(self.rows):
            expected = f"{len(self.rows)} rows of {len(self.columns)}"
            raise SurgdinoError("a confusion cannot be used", place=self.title, expected=expected, found=found)


@dataclass(frozen=True)
class _Results:
    task: str
    headline: _Headline
    scores: tuple[_Score, ...]
    notes: tuple[str, ...] = ()
    leakage: _Leakage | None = None
    folds: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    classes: tuple[_Classes, ...] = ()
    confusions: tuple[_Confusion, ...] = ()


@dataclass(frozen=True)
class _Measured:
    value: _Number
    interval_95: tuple[_Number, _Number]
    per_operation: dict[str, _Number]


@dataclass(frozen=True)
class _Row:
    dataset: str
    evaluation: str
    labels: str | None
    measure: str
    better: Literal["higher", "lower"] | None
    unit: str
    values: dict[str, _Measured]
    changes: dict[str, _Measured]
    curve: tuple[str, int] | None = None


@dataclass(frozen=True)
class _Cost:
    dataset: str
    evaluation: str
    backbone: str
    seconds: float
    frames: int


@dataclass(frozen=True)
class _Tested:
    tested: int
    split: str | dict[str, Any] | None = None


@dataclass(frozen=True)
class _Benchmark:
    suite: str
    backbones: dict[str, str]
    datasets: dict[str, _Tested]
    rows: tuple[_Row, ...]
    cost: tuple[_Cost, ...]
    unused: tuple[str, ...]
    failed: dict[str, str]
    leakage: _Leakage


@dataclass(frozen=True)
class _Coloured:
    operation: str
    pictures: dict[str, str]


@dataclass(frozen=True)
class _Components:
    datasets: dict[str, tuple[_Coloured, ...]]
