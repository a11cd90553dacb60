"""MS-TCN++ (Li et al., TPAMI 2020): every layer looks near and far at once, and three stages refine what it says.

In the first stage layer l of L joins two convolutions, of dilations 2^l and 2^(L-1-l). The others are those of `tcn`,
each over the probabilities of the stage before. Beyond the ends of a video stand its first and last frames (`padded`).
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from surgdino.tasks.phase.temporal import Sizes, TemporalModel
from surgdino.tasks.phase.temporal.tcn import KERNEL, ConvolutionStage, State, dilated_stage, padded, refined

REFINEMENTS = 3


class MultiStageConvolutions(TemporalModel):
    """A stage of dual dilated layers, then refinements; causal where `online`, centred on the frame otherwise.

    A stage of L layers looks 2 (2^L - 1) frames back, or half as far back and ahead (the first up to twice that).
    """

    DEFAULTS: ClassVar = {"layers": 4, "width": 32, "dropout": 0.2}
    TRAINING: ClassVar = {"lr": 2e-3}

    def __init__(self, features: int, classes: int, sizes: Sizes, *, online: bool) -> None:
        super().__init__(features, classes, sizes, online=online)
        dilations = [2**place for place in range(sizes.layers)]
        pairs = zip(dilations, reversed(dilations), strict=True)
        self.first = ConvolutionStage(features, classes, sizes, (_DualLayer(sizes, pair, online) for pair in pairs))
        later = (dilated_stage(classes, classes, sizes, online, repeats=True) for _ in range(REFINEMENTS))
        self.refinements = nn.ModuleList(later)

    def run(self, features: Tensor, state: State | None) -> tuple[list[Tensor], State]:
        """See `TemporalModel`."""
        return refined((self.first, *self.refinements), features, state)


class _DualLayer(nn.Module):
    """x + relu(W [near * x, far * x])."""

    def __init__(self, sizes: Sizes, dilations: tuple[int, int], online: bool) -> None:
        super().__init__()
        self.reach, self.online, self.dilations = (KERNEL - 1) * max(dilations), online, dilations
        self.dilated = nn.ModuleList(nn.Conv1d(sizes.width, sizes.width, KERNEL, dilation=each) for each in dilations)
        self.mix = nn.Conv1d(len(dilations) * sizes.width, sizes.width, 1)
        self.dropout = nn.Dropout(sizes.dropout)

    def forward(self, maps: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor]:
        around = padded(maps, past, self.reach, self.online, repeats=True)
        found = []
        for layer, dilation in zip(self.dilated, self.dilations, strict=True):
            spare = self.reach - (KERNEL - 1) * dilation  # of the frames around, those that it does not reach
            first, last = (spare, 0) if self.online else (spare // 2, spare // 2)
            found.append(layer(around[:, :, first : around.shape[2] - last]))
        change = self.dropout(F.relu(self.mix(torch.cat(found, 1))))
        return maps + change, around[:, :, -self.reach :].detach()
