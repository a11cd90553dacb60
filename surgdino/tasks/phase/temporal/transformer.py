"""A small causal transformer over time, with attention to the last `window` frames only.

The bounded window keeps memory flat in the video's length: what a layer needs of the past are the keys and values of
`window` - 1 frames. Positions enter as a penalty on the distance (ALiBi: Press et al., ICLR 2022), so that a frame is
treated alike wherever in the video it stands.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from surgdino.errors import SurgdinoError
from surgdino.tasks.phase.temporal import Sizes, TemporalModel, kept

HEADS = 4

# Keys and values [2, heads, m, width / heads] of the last m < window frames, one entry a layer.
State = list[Tensor]


class WindowedTransformer(TemporalModel):
    """Pre-norm transformer blocks whose attention sees the frames within `window`, earlier ones only if `online`.

    L layers look back over L (window - 1) frames, and offline as far ahead.
    """

    DEFAULTS: ClassVar = {"layers": 2, "width": 128, "dropout": 0.1}

    def __init__(self, features: int, classes: int, sizes: Sizes, *, online: bool) -> None:
        super().__init__(features, classes, sizes, online=online)
        check_width(sizes.width)
        self.enter = nn.Sequential(nn.LayerNorm(features), nn.Linear(features, sizes.width))
        self.blocks = nn.ModuleList(
            TransformerBlock(sizes.width, sizes.window, sizes.dropout, online) for _ in range(sizes.layers)
        )
        self.leave = nn.Sequential(nn.LayerNorm(sizes.width), nn.Linear(sizes.width, classes))

    def run(self, features: Tensor, state: State | None) -> tuple[list[Tensor], State]:
        """See `TemporalModel`; the one stage."""
        tokens, left = self.enter(features), []
        for place, block in enumerate(self.blocks):
            tokens, past = block(tokens, state[place] if state else None)
            left.append(past)
        return [self.leave(tokens)], left


def check_width(width: int) -> None:
    """Refuse a width that the heads of a block do not divide."""
    if width % HEADS:
        expected = f"a multiple of {HEADS}, the number of heads"
        raise SurgdinoError("task.width cannot be used", expected=expected, found=width)


class TransformerBlock(nn.Module):
    """A pre-norm block: attention within the window, then a perceptron."""

    slopes: Tensor

    def __init__(self, width: int, window: int, dropout: float, online: bool) -> None:
        super().__init__()
        self.window, self.online = window, online
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)
        slopes = [2 ** (-8 * (head + 1) / HEADS) for head in range(HEADS)]  # ALiBi's geometric sequence
        self.register_buffer("slopes", torch.tensor(slopes), persistent=False)

    def forward(self, tokens: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor]:
        """The tokens [n, width] of the next frames, and the keys and values that the frames after them will see."""
        queries, keys, values = self.qkv(self.norm1(tokens)).unflatten(1, (3, HEADS, -1)).permute(1, 2, 0, 3)
        seen = torch.stack([keys, values])
        if past is not None:
            seen = torch.cat([past, seen], 2)
        attended = windowed_attention(queries, seen[0], seen[1], self.slopes, self.window, self.online)
        tokens = tokens + self.dropout(self.project(attended.transpose(0, 1).flatten(1)))
        tokens = tokens + self.dropout(self.mlp(self.norm2(tokens)))
        return tokens, kept(seen, self.window - 1)


def windowed_attention(
    queries: Tensor, keys: Tensor, values: Tensor, slopes: Tensor, window: int, online: bool, *, at_once: int = 0
) -> Tensor:
    """softmax(Q K^T / sqrt(E) - slope x distance) V over the frames nearer than `window`, earlier ones only if online.

    Goes through the queries a window at a time, so that memory grows with n, not with its square. A program that is
    exported has no loop over a length that it does not know: it looks at all at once.

    Args:
        queries: [heads, n, E], of the last n frames.
        keys, values: [heads, m + n, E], of these and the m frames before them.
        slopes: [heads], of the penalty on the distance in frames.
        at_once: queries that are looked at together where the window is smaller.

    Returns:
        [heads, n, E]
    """
    count, total = queries.shape[1], keys.shape[1]
    before, parts = total - count, []
    rows = max(window, at_once)
    for start in (0,) if torch.compiler.is_exporting() else range(0, count, rows):
        stop, first, last = count, 0, total
        if not torch.compiler.is_exporting():
            stop = min(start + rows, count)
            first, last = max(0, before + start - window + 1), min(total, before + stop + (0 if online else window - 1))
        own = torch.arange(before + start, before + stop, device=queries.device)
        distance = own[:, None] - torch.arange(first, last, device=queries.device)
        visible = (distance < window) & (distance >= 0 if online else distance > -window)
        bias = torch.where(visible, -distance.abs() * slopes[:, None, None], -math.inf).to(queries.dtype)
        seen = queries[:, start:stop], keys[:, first:last], values[:, first:last]
        if torch.compiler.is_exporting():  # ONNX has attention of four dimensions alone
            q, k, v = (each[None] for each in seen)
            parts.append(F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None])[0])
        else:
            parts.append(F.scaled_dot_product_attention(*seen, attn_mask=bias))
    return torch.cat(parts, 1)
