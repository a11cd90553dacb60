"""The relative time in the operation: of all that is free, the nearest to its phase."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from surgdino.engine.guide import Facts, Guide, Known, nothing_known
from surgdino.engine.guides.time_settings import Settings
from surgdino.engine.methods.parts.heads import mlp


class Time(Guide):
    """Regression of t / T, or the class of its bin."""

    settings: Settings
    head: nn.Module

    def __init__(self, key: str, settings: Settings, embed_dim: int, facts: Facts) -> None:
        super().__init__(key, settings)
        if not np.isfinite(facts["time"]).any():
            fix = "leave it out, or set data.recordings=whole where a recording is a whole operation"
            raise nothing_known(key, "recordings of whole operations", fix)
        self.head = mlp(embed_dim, settings.head_hidden, settings.bins or 1)

    @classmethod
    def reads(cls, settings: Settings) -> tuple[str, ...]:
        """`time`: float32, 0 to 1."""
        return ("time",)

    def loss(self, cls: Tensor, known: Known) -> tuple[Tensor, dict[str, Tensor]]:
        """Squared error, or with bins the cross-entropy; `error`: mean absolute error in percent of the operation."""
        time = known.facts["time"]
        there, outputs = torch.isfinite(time), self.head(cls)
        target = torch.where(there, time, 0.0)[:, known.own]
        if self.settings.bins:
            values, predicted = _binned(outputs, target)
        else:
            predicted = outputs[..., 0].sigmoid()
            values = (predicted - target).square()
        loss = known.mean(values, there)
        error = known.mean((predicted - target).abs(), there)
        return loss, {"": loss.detach(), "error": 100 * error.detach()}


def _binned(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy with the two bins whose centres are nearest, shared by distance; and the expected time.

    Args:
        logits: [..., n]; bin k is centred at k / (n - 1).
        target: [...].
    """
    bins = logits.shape[-1]
    centres = torch.linspace(0, 1, bins, device=logits.device)
    shares = (1 - (target[..., None] - centres).abs() * max(bins - 1, 1)).clamp(min=0)
    predicted = (logits.softmax(-1) * centres).sum(-1)
    return -(shares * F.log_softmax(logits, -1)).sum(-1), predicted
