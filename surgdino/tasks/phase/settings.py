"""The `task` section of phase recognition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from surgdino.config import NonNegative, NonNegativeInt, Positive
from surgdino.tasks.phase.temporal import check_temporal


@dataclass(frozen=True)
class PhaseSettings:
    """Key for key what configs/task/phase.yaml explains."""

    name: str
    temporal: str
    tokens: Literal["cls", "cls+mean"]
    align: bool
    hidden: NonNegativeInt
    balance: Literal["median-frequency", "none"]
    smoothing: NonNegative
    layers: int | None
    width: int | None
    window: int
    dropout: float | None
    temporal_epochs: Positive | None
    temporal_lr: Positive | None

    def __post_init__(self) -> None:
        check_temporal(self.temporal)
