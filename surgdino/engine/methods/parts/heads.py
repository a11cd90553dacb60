"""Heads: the objective is computed on their output. A checkpoint leaves them out."""

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


class PrototypeHead(nn.Module):
    """A projection to unit length, then its cosine with each of K prototypes; [..., D] -> [..., K] in [-1, 1].

    The prototypes are the weight-normalised last layer of Caron et al. 2021 (arXiv 2104.14294) with its gain held at 1:
    only their directions count.
    """

    def __init__(self, embed_dim: int, hidden: int, width: int, prototypes: int) -> None:
        super().__init__()
        self.projection = ProjectionHead(embed_dim, hidden, width)
        self.prototypes = nn.Parameter(torch.empty(prototypes, width))
        nn.init.normal_(self.prototypes, std=width**-0.5)

    def forward(self, tokens: Tensor, frozen: bool = False) -> Tensor:
        """Cosines with the prototypes, which take no gradient where `frozen`.

        None rather than zero: the optimiser then leaves their moments alone, which otherwise would fill with zeros and
        make the first steps after too large.
        """
        with torch.autocast(tokens.device.type, enabled=False):
            directions = F.normalize(self.prototypes.float(), dim=-1)
        return F.linear(self.projection(tokens), directions.detach() if frozen else directions)


def mlp(embed_dim: int, hidden: int, out: int, bias: bool = True) -> nn.Module:
    """A linear layer, or two with GELU between where `hidden` is not 0; `bias` is the last one's."""
    last = nn.Linear(hidden or embed_dim, out, bias=bias)
    return nn.Sequential(nn.Linear(embed_dim, hidden), nn.GELU(), last) if hidden else last
