"""The projection head: where the objective is computed, thrown away afterwards."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ProjectionHead(nn.Module):
    """Three linear layers with GELU between, then unit length.

    Shapes: [..., D] -> [..., out]. The length is divided out in fp32 outside autocast, because everything that follows
    (cosines, Gram matrices, Cholesky) needs it exact.
    """

    def __init__(self, embed_dim: int, hidden: int = 2048, out: int = 256) -> None:
        super().__init__()
        linear = [nn.Linear(embed_dim, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, out)]
        self.layers = nn.Sequential(linear[0], nn.GELU(), linear[1], nn.GELU(), linear[2])
        for layer in linear:
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        projected = self.layers(tokens)
        with torch.autocast(projected.device.type, enabled=False):
            return F.normalize(projected.float(), dim=-1, eps=1e-6)
