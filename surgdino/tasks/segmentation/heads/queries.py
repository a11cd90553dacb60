"""A query a class goes through transformer blocks with the patches; its mask is where the patches agree with it.

Mask classification as in EoMT (Kerssies et al. 2025, arXiv 2503.19108): queries are tokens beside the patches, without
another decoder. Two things differ: a class has one mask, so a query belongs to its class from the beginning and nothing
is matched (Segmenter, Strudel et al. 2021, arXiv 2105.05633); and the blocks are the head's own, since those of a
frozen backbone may not change.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from surgdino.tasks.segmentation.heads import PRIOR, DenseHead
from surgdino.tasks.segmentation.pyramid import Enlarge

_BLOCKS, _HEAD_WIDTH = 2, 32
# Of a class's agreement, a cosine: at first so little that no class is seen anywhere, and per unit of its parameter so
# much that it learns as fast as others do.
_FIRST, _SHARPNESS = 2.0, 50.0


class ClassQueries(DenseHead):
    """Logits at a quarter of a patch, from the last block's tokens; blocks of width `2 * maps`."""

    defaults: ClassVar = {"epochs": 15, "lr": 2e-3}

    def __init__(self, width: int, layers: int, classes: int, maps: int) -> None:
        super().__init__(width, layers, classes, maps)
        inner = 2 * maps
        heads = max(1, inner // _HEAD_WIDTH)
        if inner % heads:
            heads = 1
        self.norm, self.reduce = nn.LayerNorm(width * layers), nn.Linear(width * layers, inner)
        self.queries = nn.Parameter(torch.randn(classes, inner) * 0.02)
        block = nn.TransformerEncoderLayer(
            inner, heads, 4 * inner, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, _BLOCKS, nn.LayerNorm(inner), enable_nested_tensor=False)
        self.enlarge = nn.Sequential(Enlarge(inner), Enlarge(inner))
        self.project = nn.Linear(inner, inner)
        self.sharpness = nn.Parameter(torch.full((classes,), _FIRST / _SHARPNESS))
        self.bias = nn.Parameter(torch.full((classes,), math.log(PRIOR / (1 - PRIOR))))

    def forward(self, tokens: Tensor, grid: tuple[int, int], images: Tensor | None = None) -> Tensor:
        """Logits [B, C, 4h, 4w]: the cosine of a class's query and a place's map, scaled and shifted by class."""
        own = self.reduce(self.norm(tokens.float()))
        queries = self.queries.expand(own.shape[0], -1, -1)
        queries, patches = self.blocks(torch.cat([queries, own], 1)).split([queries.shape[1], own.shape[1]], 1)
        maps = patches.transpose(1, 2).unflatten(2, grid)
        places = F.normalize(self.enlarge(maps), dim=1)
        agreement = torch.einsum("bcd,bdhw->bchw", F.normalize(self.project(queries), dim=2), places)
        return agreement * (_SHARPNESS * self.sharpness)[:, None, None] + self.bias[:, None, None]
