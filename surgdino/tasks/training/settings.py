"""The `train` section of `surgdino finetune`: what a user may set, over what the task and its stages set."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from surgdino.errors import SurgdinoError, nearest


@dataclass(frozen=True)
class TrainSettings:
    """Key for key what configs/finetune.yaml explains; None takes the task's own."""

    epochs: float | None = None
    steps: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    min_lr: float | None = None
    weight_decay: float | None = None
    layer_decay: float | None = None
    warmup: float | None = None
    clip: float | None = None
    drop_path: float | None = None
    patience: int | None = None
    validate_every: int | None = None
    crop_scale: tuple[float, float] | None = None
    seed: int = 0
    checkpoint_every: int = 200
    log_every: int = 10

    def __post_init__(self) -> None:
        least: dict[str, float] = {"batch_size": 1, "steps": 1, "validate_every": 1, "checkpoint_every": 1}
        least |= {"log_every": 1, "patience": 0, "weight_decay": 0, "min_lr": 0, "clip": 0, "warmup": 0, "drop_path": 0}
        for key, low in least.items():
            value = getattr(self, key)
            _require(value is None or value >= low, key, f"{low} or more", value)
        for key in ("epochs", "lr"):
            value = getattr(self, key)
            _require(value is None or value > 0, key, "more than 0", value)
        _require(self.layer_decay is None or 0 < self.layer_decay <= 1, "layer_decay", "in (0, 1]", self.layer_decay)
        _require((self.warmup or 0) <= 1, "warmup", "a share of the steps, 0 to 1", self.warmup)
        low_scale, high_scale = self.crop_scale or (1, 1)
        _require(0 < low_scale <= high_scale <= 1, "crop_scale", "[low, high] within (0, 1]", self.crop_scale)


@dataclass(frozen=True)
class StageTraining:
    """How one stage is trained, with nothing left open.

    Attributes:
        epochs: passes over the source's samples, used where `steps` is None.
        steps: optimiser steps.
        batch_size: samples a step over all processes.
        lr, min_lr: peak and last learning rate of the head, as they are (no hidden scaling by the batch size).
        weight_decay: of what decays at all, constant.
        layer_decay: factor on the learning rate from one block of the backbone to the one below it.
        warmup: share of the steps in which the rate rises linearly; a cosine follows.
        clip: largest global norm of the gradient; 0 leaves it alone.
        drop_path: stochastic depth of a backbone that learns.
        patience: validations in a row without a better one, after which the stage ends; 0 never ends early.
        validate_every: steps; None validates once an epoch.
    """

    epochs: float = 10
    steps: int | None = None
    batch_size: int = 64
    lr: float = 1e-3
    min_lr: float = 0.0
    weight_decay: float = 0.01
    layer_decay: float = 0.75
    warmup: float = 0.05
    clip: float = 1.0
    drop_path: float = 0.0
    patience: int = 10
    validate_every: int | None = None
    crop_scale: tuple[float, float] = (0.5, 1.0)
    seed: int = 0
    checkpoint_every: int = 200
    log_every: int = 10

    def total_steps(self, samples: int) -> int:
        """Optimiser steps of the stage over a source of that many samples."""
        return self.steps if self.steps is not None else max(1, math.ceil(self.epochs * samples / self.batch_size))

    def validation_steps(self, samples: int) -> int:
        """Steps from one validation to the next."""
        return self.validate_every or max(1, math.ceil(samples / self.batch_size))


def resolve(user: TrainSettings, *layers: Mapping[str, Any], overrides: Mapping[str, Any]) -> StageTraining:
    """What counts: `overrides`, else what the user set, else the last of `layers` (task, then stage) that says it.

    A choice of `steps` puts an earlier one of `epochs` aside, and the other way round.
    """
    known = [f.name for f in dataclasses.fields(StageTraining)]
    given = {key: value for key, value in dataclasses.asdict(user).items() if value is not None}
    chosen: dict[str, Any] = {}
    for layer in (*layers, given, overrides):
        for key in layer:
            if key not in known:
                raise KeyError(f"a task sets train.{key}, which there is not: {nearest(key, known)}")
        if "epochs" in layer and "steps" not in layer:
            chosen["steps"] = None
        chosen |= layer
    return StageTraining(**chosen)


def _require(holds: bool, key: str, expected: str, found: object) -> None:
    if not holds:
        raise SurgdinoError(
            "unusable setting", place=f"train.{key}", expected=expected, found=found, fix=f"change train.{key}"
        )
