"""A stage of a task: one thing that is trained, with what, by which loss, and how it is judged on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from surgdino.tasks.training.batches import Batch, Source

Loss = Callable[[nn.Module, Batch], dict[str, Tensor]]
Validate = Callable[[nn.Module], dict[str, float]]


@dataclass
class Stage:
    """What `fit` trains.

    Attributes:
        name: such as `frame` or `temporal`; unique within the task.
        model: everything that learns here, and is put back to its best state at the end.
        groups: the optimiser's: dicts of `params`, `lr_scale` (factor on the learning rate) and `decays` (whether
            weight decay applies); `tuning.head_groups` and `tuning.backbone_groups` make them.
        source: the batches.
        loss: (model, batch on the device) -> scalars, `loss` among them, which is minimised; the others are logged. It
            calls `model(...)` exactly once, because gradients of several processes are averaged around that call, and
            runs under autocast: bring logits to float before a loss.
        validate: model -> numbers on the validation part, the one that counts first, higher is better. None where there
            is no validation part. It runs in the main process alone, without gradient, in evaluation mode.
        defaults: of the `train` section, for this stage; what the user sets counts more.
        overrides: what counts more than the user's `train` section, from settings of the task's own.
    """

    name: str
    model: nn.Module
    groups: list[dict[str, Any]]
    source: Source
    loss: Loss
    validate: Validate | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    overrides: Mapping[str, Any] = field(default_factory=dict)
