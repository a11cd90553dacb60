"""A transformer with a short window and a memory of the whole video, after SKiT (Liu et al., ICCV 2023).

The window sees what is going on; the memory holds what has ever happened: of each of a few learned keys the highest
value so far. It costs the same at every frame, and is learnt from whole videos.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from surgdino.tasks.phase.temporal import Sizes, TemporalModel
from surgdino.tasks.phase.temporal.transformer import HEADS, TransformerBlock, check_width

WINDOW = 64  # frames at most that a layer looks at; what was before is the memory's part

# The past of every block, then the highest keys so far, [1, keys].
State = list[Tensor]


class LongMemoryTransformer(TemporalModel):
    """Windowed blocks, then the maximum of keys over all frames so far; offline, over all frames to come too."""

    DEFAULTS: ClassVar = {"layers": 2, "width": 64, "dropout": 0.3}

    def __init__(self, features: int, classes: int, sizes: Sizes, *, online: bool) -> None:
        super().__init__(features, classes, sizes, online=online)
        width = sizes.width
        check_width(width)
        window = min(sizes.window, WINDOW)
        self.enter = nn.Sequential(nn.LayerNorm(features), nn.Dropout(sizes.dropout), nn.Linear(features, width))
        self.blocks = nn.ModuleList(TransformerBlock(width, window, sizes.dropout, online) for _ in range(sizes.layers))
        self.keys = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width // HEADS))
        joined = width + width // HEADS * (1 if online else 2)
        self.leave = nn.Sequential(nn.LayerNorm(joined), nn.Dropout(sizes.dropout), nn.Linear(joined, classes))

    def run(self, features: Tensor, state: State | None) -> tuple[list[Tensor], State]:
        """See `TemporalModel`; the one stage."""
        tokens, kept = self.enter(features), []
        for place, block in enumerate(self.blocks):
            tokens, past = block(tokens, state[place] if state else None)
            kept.append(past)
        keys = self.keys(tokens)
        before = highest(keys) if state is None else highest(torch.cat([state[-1], keys]))[-len(keys) :]
        memory = [before] if self.online else [before, highest(keys.flip(0)).flip(0)]
        return [self.leave(torch.cat([tokens, *memory], 1))], [*kept, before[-1:].detach()]


def highest(keys: Tensor) -> Tensor:
    """The maximum of every key [n, K] over this frame and those before it."""
    return keys.cummax(0).values
