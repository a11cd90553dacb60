"""What each verb takes: configs/VERB.yaml as typed settings. Imports no torch, so that a slip is answered at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from surgdino.backbone.settings import ModelSettings
from surgdino.config import Fps, Location, Names, PositiveInt, Seed, Share, Side, Text
from surgdino.crops.settings import CropSettings
from surgdino.curation.settings import BalanceSettings, DuplicateSettings, RetrievalSettings, UnusableSettings
from surgdino.engine.settings import HardwareSettings, LogSettings, PretrainSettings
from surgdino.errors import SurgdinoError
from surgdino.inputs.settings import DataSettings, ProbeSettings, ReportSettings, RunSettings
from surgdino.runs.leaks import Leakage
from surgdino.tasks.settings import Averaging, HeadTraining, Smoothing, Tuning

# A setting: one, or a list of them.
BackboneList = Annotated[Names, Field(min_length=1, max_length=100)]


@dataclass(frozen=True)
class PretrainConfig:
    """The sections of configs/pretrain.yaml; `method` and `augment` are checked by the rooms that read them."""

    dataset: dict
    model: ModelSettings
    method: dict
    augment: dict
    data: DataSettings
    crops: CropSettings
    probe: ProbeSettings
    train: PretrainSettings
    hardware: HardwareSettings
    run: RunSettings
    report: ReportSettings
    guide: dict = field(default_factory=dict)
    phases: tuple[dict, ...] | None = None
    log: LogSettings = field(default_factory=LogSettings)


@dataclass(frozen=True)
class FinetuneConfig:
    """configs/finetune.yaml. `dataset`, `task` and `augment` are checked by those who read them."""

    checkpoint: Text | None
    backbone: Tuning
    leakage: Leakage
    image_size: Side | None
    dataset: dict[str, Any]
    model: ModelSettings
    task: dict[str, Any]
    augment: dict[str, Any]
    data: DataSettings
    train: HeadTraining
    hardware: HardwareSettings
    run: RunSettings
    report: ReportSettings
    log: LogSettings = field(default_factory=LogSettings)


@dataclass(frozen=True)
class EvaluateConfig:
    """configs/evaluate.yaml."""

    checkpoint: Text
    part: Literal["test", "val", "train"]
    averaging: Averaging
    smoothing: Smoothing
    leakage: Leakage | None
    out: Location | None
    details: bool
    hardware: HardwareSettings
    report: ReportSettings
    data: dict[str, Any]
    dataset: dict[str, Any] | None = None


@dataclass(frozen=True)
class DatasetRoot:
    """The `data` section of configs/predict.yaml."""

    root: Location | None


@dataclass(frozen=True)
class PredictConfig:
    """configs/predict.yaml."""

    checkpoint: Text | tuple[Text, ...]
    averaging: Averaging
    smoothing: Smoothing
    out: Location | None
    truth: Location | None
    questions: Names | None
    image_fps: Fps | None
    hardware: HardwareSettings
    report: ReportSettings
    data: DatasetRoot


@dataclass(frozen=True)
class BenchmarkConfig:
    """configs/benchmark.yaml; `data` is checked by `open_data`."""

    suite: Text
    backbones: BackboneList
    leakage: Leakage
    image_size: Side | None
    data: dict[str, Any]
    hardware: HardwareSettings
    run: RunSettings


@dataclass(frozen=True)
class CurateConfig:
    """configs/curate.yaml."""

    checkpoint: Text | None
    image_size: Side | None
    seed: Seed
    keep: PositiveInt | None
    like: Text | dict[str, Any] | None
    against: Text | dict[str, Any] | None
    dataset: dict[str, Any]
    model: ModelSettings
    data: DataSettings
    unusable: UnusableSettings
    duplicates: DuplicateSettings
    retrieval: RetrievalSettings
    balance: BalanceSettings
    hardware: HardwareSettings
    run: RunSettings
    report: ReportSettings


@dataclass(frozen=True)
class MergeConfig:
    """configs/merge.yaml; `data` and `probe` are replaced by those of a saved run where `data.root` is null."""

    out: Location
    alpha: Share
    sweep: tuple[Share, ...] | Share | str | None
    dataset: dict
    data: dict
    probe: ProbeSettings
    hardware: HardwareSettings

    def __post_init__(self) -> None:
        for alpha in self.alphas:
            if not 0 <= alpha <= 1:
                raise SurgdinoError("sweep cannot be used", expected="shares, 0 to 1", found=alpha)

    @property
    def alphas(self) -> tuple[float, ...]:
        """The shares to measure, each once, ascending; empty where nothing is swept.

        0 is always among them, so that what is kept is no worse than the initial weights.
        """
        if self.sweep is None:
            return ()
        given = self.sweep.split(",") if isinstance(self.sweep, str) else self.sweep
        try:
            return tuple(sorted({0.0, *(float(v) for v in (given if isinstance(given, list | tuple) else [given]))}))
        except ValueError as error:
            raise SurgdinoError("sweep is not a list of shares", expected="0,0.5,1", found=self.sweep) from error


@dataclass(frozen=True)
class ExportConfig:
    """configs/export.yaml."""

    format: str
    out: Location
    head: bool


@dataclass(frozen=True)
class VerifySettings:
    """The sections of the configuration that are used here; a recipe may bring others."""

    data: DataSettings
    dataset: dict
