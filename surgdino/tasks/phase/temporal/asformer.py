"""ASFormer (Yi et al., BMVC 2021): attention in windows that double from layer to layer, each after a convolution.

An encoder over the features, then decoders that refine its answer: their queries and keys see the encoder's tokens too.
A layer's attention spans the frames that its dilated convolution spans. Unlike the paper's, norms are over the width of
a frame and not over the video's time, because an online model does not know the video's end.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from surgdino.tasks.phase.temporal import Sizes, TemporalModel, kept
from surgdino.tasks.phase.temporal.tcn import KERNEL, padded
from surgdino.tasks.phase.temporal.transformer import windowed_attention

DECODERS = 3
_AT_ONCE = 64

# Of every layer: the last inputs of its convolution, and the last keys and values.
State = list[list[Tensor]]


class ActionSegmentationTransformer(TemporalModel):
    """Encoder and decoders of L layers with dilations 1, 2, 4, ...; see the module."""

    DEFAULTS: ClassVar = {"layers": 4, "width": 32, "dropout": 0.3}
    TRAINING: ClassVar = {"lr": 1e-3}

    def __init__(self, features: int, classes: int, sizes: Sizes, *, online: bool) -> None:
        super().__init__(features, classes, sizes, online=online)
        self.layers = sizes.layers
        self.enter = nn.ModuleList(nn.Linear(each, sizes.width) for each in (features, *[classes] * DECODERS))
        self.leave = nn.ModuleList(nn.Linear(sizes.width, classes) for _ in range(1 + DECODERS))
        places = [(part, 2**layer) for part in range(1 + DECODERS) for layer in range(sizes.layers)]
        self.blocks = nn.ModuleList(_Block(sizes, dilation, online, refines=part > 0) for part, dilation in places)

    def run(self, features: Tensor, state: State | None) -> tuple[list[Tensor], State]:
        """See `TemporalModel`; a stage is the encoder or a decoder."""
        answers: list[Tensor] = []
        left: State = []
        encoded = None
        for part, (enter, leave) in enumerate(zip(self.enter, self.leave, strict=True)):
            tokens = enter(answers[-1].softmax(1) if answers else features)
            for place in range(part * self.layers, (part + 1) * self.layers):
                tokens, past = self.blocks[place](tokens, encoded, state[place] if state else None)
                left.append(past)
            encoded = tokens  # of the encoder for the first decoder, then of the decoder before
            answers.append(leave(tokens))
        return answers, left


class _Block(nn.Module):
    """x + W (f + attention(norm(f))) with f a dilated convolution of x."""

    none: Tensor

    def __init__(self, sizes: Sizes, dilation: int, online: bool, *, refines: bool) -> None:
        super().__init__()
        width = sizes.width
        self.reach, self.online = (KERNEL - 1) * dilation, online
        self.window = (self.reach if online else dilation) + 1
        self.dilated = nn.Conv1d(width, width, KERNEL, dilation=dilation)
        self.norm = nn.LayerNorm(width)
        self.look, self.value = nn.Linear(width * (2 if refines else 1), 2 * width), nn.Linear(width, width)
        self.mix, self.dropout = nn.Linear(width, width), nn.Dropout(sizes.dropout)
        self.register_buffer("none", torch.zeros(1), persistent=False)  # no penalty on the distance

    def forward(self, tokens: Tensor, encoded: Tensor | None, past: list[Tensor] | None) -> tuple[Tensor, list[Tensor]]:
        """The tokens [n, width] of the next frames, and what the frames after them go on from."""
        around = padded(tokens.T[None], past[0] if past else None, self.reach, self.online, repeats=True)
        found = F.relu(self.dilated(around))[0].T
        normed = self.norm(found)
        queries, keys = self.look(normed if encoded is None else torch.cat([normed, encoded], 1)).chunk(2, 1)
        seen = torch.stack([keys, self.value(normed)])[:, None]  # one head
        if past:
            seen = torch.cat([past[1], seen], 2)
        attended = windowed_attention(
            queries[None], seen[0], seen[1], self.none, self.window, self.online, at_once=_AT_ONCE
        )
        change = self.dropout(self.mix(found + attended[0]))
        return tokens + change, [around[:, :, -self.reach :].detach(), kept(seen, self.window - 1)]
