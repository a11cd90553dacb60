"""A stage of a task: what is trained, on which data, by which loss, with which settings, and how it is judged."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from surgdino.errors import nearest
from surgdino.tasks.settings import HeadTraining
from surgdino.tasks.training.batches import Batch, TrainingData

Loss = Callable[[nn.Module, Batch], dict[str, Tensor]]
Validate = Callable[[nn.Module], dict[str, float]]


@dataclass
class Stage:
    """What `fit` trains.

    Attributes:
        name: such as `frame` or `temporal`; unique within the task.
        model: everything that learns here; at the end it has its best weights.
        groups: the optimiser's, made by `tuning.head_groups` and `tuning.backbone_groups`.
        data: the batches.
        loss: (model, batch on the device) -> scalars, `loss` among them, which is minimised; the others are logged. It
            calls `model(...)` exactly once, because gradients of several processes are averaged around that call, and
            runs under autocast: bring logits to float before a loss.
        validate: model -> numbers on the validation part, the one that counts first, higher is better. None where there
            is no validation part. It runs in the main process alone, without gradient, in evaluation mode.
        defaults: of the `train` section, for this stage; what the user sets counts more.
        overrides: what counts more than the user's `train` section, from settings of the task's own.
        kept: whether the head is saved after it, which a stage that only helps to choose leaves as it was.
        places: (batch on the host) -> more of it: where in it something is, such as what is labelled. Had the loss to
            ask a GPU for that, the host would wait for it in every step. None: nothing.
    """

    name: str
    model: nn.Module
    groups: list[dict[str, Any]]
    data: TrainingData
    loss: Loss
    validate: Validate | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    overrides: Mapping[str, Any] = field(default_factory=dict)
    kept: bool = True
    places: Callable[[Batch], Batch] | None = None


@dataclass(frozen=True)
class StageTraining:
    """How one stage is trained, with nothing left open; the values here are for what neither task nor user sets."""

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
        """Optimiser steps of the stage over that many samples."""
        return self.steps if self.steps is not None else max(1, math.ceil(self.epochs * samples / self.batch_size))

    def validation_steps(self, samples: int) -> int:
        """Steps from one validation to the next."""
        return self.validate_every or max(1, math.ceil(samples / self.batch_size))


def resolve(user: HeadTraining, *layers: Mapping[str, Any], overrides: Mapping[str, Any]) -> StageTraining:
    """What counts: `overrides`, else what the user set, else the last of `layers` (task, then stage) that says it.

    A choice of `steps` replaces an earlier one of `epochs`, and the other way round.
    """
    known = [f.name for f in dataclasses.fields(StageTraining)]
    given = {key: value for key, value in dataclasses.asdict(user).items() if value is not None and key in known}
    chosen: dict[str, Any] = {}
    for layer in (*layers, given, overrides):
        for key in layer:
            if key not in known:
                raise KeyError(f"a task sets train.{key}, which does not exist: {nearest(key, known)}")
        if "epochs" in layer and "steps" not in layer:
            chosen["steps"] = None
        chosen |= layer
    return StageTraining(**chosen)
