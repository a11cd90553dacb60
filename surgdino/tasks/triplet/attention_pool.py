"""Attention pooling: learned queries that each choose which patches of a picture they look at.

Shapes: B pictures, N patches, D the width, Q queries, H heads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class AttentionPool(nn.Module):
    """Multi-head attention of Q learned queries over patch tokens, one pooled vector each.

    The attention of a learned query q to a token x is (W_q q) . (W_k x) = (W_k' W_q q) . x: the product of the two
    projections with the query is itself just a vector, and is learned as one. A value projection after the weighted sum
    in place of before it is the same sum. Both together make pooling some D / (Q H) times cheaper than attention in the
    textbook's order, with the same functions within reach.

    Args:
        width: D.
        queries: Q.
        heads: H, which must divide D.
    """

    def __init__(self, width: int, queries: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"{heads} heads do not divide a width of {width}")
        self.queries = nn.Parameter(torch.empty(queries, heads, width))
        self.values = nn.Parameter(torch.empty(heads, width, width // heads))
        nn.init.normal_(self.queries, std=0.02)
        nn.init.normal_(self.values, std=width**-0.5)

    def forward(self, patches: Tensor) -> Tensor:
        """[B, N, D] -> [B, Q, D]."""
        queries, heads, width = self.queries.shape
        weights = (F.linear(patches, self.queries.flatten(0, 1)) * width**-0.5).softmax(1)  # [B, N, Q H]
        seen = (weights.transpose(1, 2) @ patches).unflatten(1, (queries, heads))
        return torch.einsum("bqhd,hde->bqhe", seen, self.values).flatten(2)
