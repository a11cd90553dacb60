"""A linear classifier over several frames at once: the features of a frame, and their means over clips around it.

The clips end with the frame where the model is online, and are centred on it otherwise. They are 4, 16, 64, ... frames
long, `layers` of them. Before the first frame of a video stands the first frame.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from surgdino.tasks.phase.temporal import Sizes, TemporalModel
from surgdino.tasks.phase.temporal.tcn import padded

_FACTOR = 4


class Clips(TemporalModel):
    """Few weights, no order within a clip: what little a few videos can teach. Its `width` is of no use."""

    DEFAULTS: ClassVar = {"layers": 2, "width": 1, "dropout": 0.5}

    def __init__(self, features: int, classes: int, sizes: Sizes, *, online: bool) -> None:
        super().__init__(features, classes, sizes, online=online)
        self.clips = [_FACTOR ** (place + 1) for place in range(sizes.layers)]
        self.norm = nn.LayerNorm(features, elementwise_affine=False)
        self.dropout = nn.Dropout(sizes.dropout)
        self.classify = nn.Linear(features * (1 + sizes.layers), classes)
        nn.init.normal_(self.classify.weight, std=0.01)
        nn.init.zeros_(self.classify.bias)

    def run(self, features: Tensor, state: Tensor | None) -> tuple[list[Tensor], Tensor]:
        """See `TemporalModel`; the one stage."""
        reach = self.clips[-1]
        around = padded(features.T[None], state, reach, self.online, repeats=True)
        joined = [features]
        for clip in self.clips:
            first, last = (reach + 1 - clip, 0) if self.online else ((reach - clip) // 2, (reach - clip) // 2)
            size = clip if self.online else clip + 1
            means = F.avg_pool1d(around[:, :, first : around.shape[2] - last], size, 1)
            joined.append(self.norm(means[0].T))
        return [self.classify(self.dropout(torch.cat(joined, 1)))], around[:, :, -reach:].detach()
