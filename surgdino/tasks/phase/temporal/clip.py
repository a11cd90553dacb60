"""A linear classifier over several frames at once: the features of a frame, and their means over clips around it.

The clips end with the frame, and where the model is offline as many begin with it. They are 4, 16, 64, ... frames long,
`layers` of them. Before the first frame of a video stands the first frame.
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
        self.classify = nn.Linear(features * (1 + sizes.layers * (1 if online else 2)), classes)
        nn.init.normal_(self.classify.weight, std=0.01)
        nn.init.zeros_(self.classify.bias)

    def run(self, features: Tensor, state: Tensor | None) -> tuple[list[Tensor], Tensor]:
        """See `TemporalModel`; the one stage."""
        reach, count = self.clips[-1], features.shape[0]
        around = padded(features.T[None], state, reach * (1 if self.online else 2), self.online, repeats=True)
        joined = [features]
        for clip in self.clips:
            spans = [slice(reach + 1 - clip, reach + count)]  # that end with a frame
            if not self.online:
                spans.append(slice(reach, reach + count + clip - 1))  # that begin with it
            joined += [self.norm(F.avg_pool1d(around[:, :, span], clip, 1)[0].T) for span in spans]
        return [self.classify(self.dropout(torch.cat(joined, 1)))], around[:, :, -reach:].detach()
