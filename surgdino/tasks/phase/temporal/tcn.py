"""The two-stage causal temporal convolutional network of TeCNO (Czempiel et al., MICCAI 2020), after MS-TCN.

A stage is a 1x1 convolution to `width` maps, `layers` dilated residual layers with dilations 1, 2, 4, ..., and a 1x1
convolution to the classes. The second stage reads the first one's probabilities and refines them.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from surgdino.tasks.phase.temporal import Sizes, TemporalModel

STAGES = 2
_KERNEL = 3

# The last inputs of every layer of every stage, [1, maps, 2 x dilation] each.
State = list[list[Tensor]]


class TemporalConvolutions(TemporalModel):
    """Stages of dilated convolutions over time; causal where `online`, centred on the frame otherwise.

    With 8 layers the two stages look 2 x 510 frames back, or 510 back and ahead.
    """

    DEFAULTS: ClassVar = {"layers": 8, "width": 32, "dropout": 0.5}

    def __init__(self, features: int, classes: int, sizes: Sizes, *, online: bool) -> None:
        super().__init__(features, classes, sizes, online=online)
        inputs = [features] + [classes] * (STAGES - 1)
        self.stages = nn.ModuleList(_Stage(each, classes, sizes, online) for each in inputs)

    def run(self, features: Tensor, state: State | None) -> tuple[list[Tensor], State]:
        """See `TemporalModel`."""
        answers, kept = [], []
        signal = features.T[None]  # [1, D, T], as convolutions want it
        for place, stage in enumerate(self.stages):
            logits, past = stage(signal, state[place] if state else None)
            answers.append(logits[0].T)
            kept.append(past)
            signal = logits.softmax(1)
        return answers, kept


class _Stage(nn.Module):
    def __init__(self, inputs: int, classes: int, sizes: Sizes, online: bool) -> None:
        super().__init__()
        self.enter = nn.Conv1d(inputs, sizes.width, 1)
        dilations = [2**place for place in range(sizes.layers)]
        self.layers = nn.ModuleList(_DilatedLayer(sizes.width, d, sizes.dropout, online) for d in dilations)
        self.leave = nn.Conv1d(sizes.width, classes, 1)

    def forward(self, signal: Tensor, past: list[Tensor] | None) -> tuple[Tensor, list[Tensor]]:
        maps, kept = self.enter(signal), []
        for place, layer in enumerate(self.layers):
            maps, inputs = layer(maps, past[place] if past else None)
            kept.append(inputs)
        return self.leave(maps), kept


class _DilatedLayer(nn.Module):
    """x + W2 relu(W1 * x): a dilated convolution of three taps, mixed and added."""

    def __init__(self, maps: int, dilation: int, dropout: float, online: bool) -> None:
        super().__init__()
        self.reach, self.online = (_KERNEL - 1) * dilation, online
        self.dilated = nn.Conv1d(maps, maps, _KERNEL, dilation=dilation)
        self.mix = nn.Conv1d(maps, maps, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, maps: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor]:
        """The layer's output [1, maps, n] and its last inputs, which the next piece of the video goes on from."""
        if self.online:
            # Before the first frame there is nothing: zeros, as padding would put there.
            seen = maps.new_zeros(*maps.shape[:2], self.reach) if past is None else past
            padded = torch.cat([seen, maps], 2)
        else:
            padded = F.pad(maps, (self.reach // 2, self.reach // 2))
        change = self.dropout(self.mix(F.relu(self.dilated(padded))))
        return maps + change, padded[:, :, -self.reach :].detach()
