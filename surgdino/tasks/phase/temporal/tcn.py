"""The two-stage causal temporal convolutional network of TeCNO (Czempiel et al., MICCAI 2020), after MS-TCN.

A stage is a 1x1 convolution to `width` maps, `layers` dilated residual layers with dilations 1, 2, 4, ..., and a 1x1
convolution to the classes. The second stage reads the first one's probabilities and refines them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from surgdino.tasks.phase.temporal import Sizes, TemporalModel

STAGES = 2
KERNEL = 3

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
        self.stages = nn.ModuleList(dilated_stage(each, classes, sizes, online) for each in inputs)

    def run(self, features: Tensor, state: State | None) -> tuple[list[Tensor], State]:
        """See `TemporalModel`."""
        return refined(self.stages, features, state)


def refined(stages: Iterable[nn.Module], features: Tensor, state: State | None) -> tuple[list[Tensor], State]:
    """`TemporalModel.run` of stages that each read the probabilities of the one before."""
    answers, kept = [], []
    signal = features.T[None]  # [1, D, T], as convolutions want it
    for place, stage in enumerate(stages):
        logits, past = stage(signal, state[place] if state else None)
        answers.append(logits[0].T)
        kept.append(past)
        signal = logits.softmax(1)
    return answers, kept


class ConvolutionStage(nn.Module):
    """Logits [1, C, n] of the maps [1, inputs, n] of the next frames, and what the frames after them go on from.

    Args:
        layers: each (maps, its last inputs or None) -> (maps, its last inputs).
    """

    def __init__(self, inputs: int, classes: int, sizes: Sizes, layers: Iterable[nn.Module]) -> None:
        super().__init__()
        self.enter = nn.Conv1d(inputs, sizes.width, 1)
        self.layers = nn.ModuleList(layers)  # made here, so that random numbers are drawn in the order of the network
        self.leave = nn.Conv1d(sizes.width, classes, 1)

    def forward(self, signal: Tensor, past: list[Tensor] | None) -> tuple[Tensor, list[Tensor]]:
        maps, kept = self.enter(signal), []
        for place, layer in enumerate(self.layers):
            maps, inputs = layer(maps, past[place] if past else None)
            kept.append(inputs)
        return self.leave(maps), kept


def dilated_stage(inputs: int, classes: int, sizes: Sizes, online: bool, repeats: bool = False) -> ConvolutionStage:
    """A stage of dilations 1, 2, 4, ...; `repeats` as in `padded`."""
    dilations = [2**place for place in range(sizes.layers)]
    layers = (_DilatedLayer(sizes, each, online, repeats) for each in dilations)
    return ConvolutionStage(inputs, classes, sizes, layers)


class _DilatedLayer(nn.Module):
    """x + W2 relu(W1 * x): a dilated convolution of three taps, mixed and added."""

    def __init__(self, sizes: Sizes, dilation: int, online: bool, repeats: bool) -> None:
        super().__init__()
        self.reach, self.online, self.repeats = (KERNEL - 1) * dilation, online, repeats
        self.dilated = nn.Conv1d(sizes.width, sizes.width, KERNEL, dilation=dilation)
        self.mix = nn.Conv1d(sizes.width, sizes.width, 1)
        self.dropout = nn.Dropout(sizes.dropout)

    def forward(self, maps: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor]:
        """The layer's output [1, maps, n] and its last inputs, which the next piece of the video goes on from."""
        around = padded(maps, past, self.reach, self.online, self.repeats)
        change = self.dropout(self.mix(F.relu(self.dilated(around))))
        return maps + change, around[:, :, -self.reach :].detach()


def padded(maps: Tensor, past: Tensor | None, reach: int, online: bool, repeats: bool) -> Tensor:
    """The maps [1, M, n] with the `reach` frames before them, or half of these on either side where not online.

    Args:
        past: [1, M, reach], the maps of the frames before; None at the beginning of a video.
        repeats: beyond the ends of a video stands its first (last) frame, and not zeros. By zeros a network knows how
            long a video has been going on, which it learns by heart of a few videos.
    """
    if online:
        if past is None:
            past = maps[:, :, :1].expand(-1, -1, reach) if repeats else maps.new_zeros(*maps.shape[:2], reach)
        return torch.cat([past, maps], 2)
    return F.pad(maps, (reach // 2, reach // 2), mode="replicate" if repeats else "constant")
