"""The coding rate: how many dimensions a group of features really fills. In fp32 or wider, whatever surrounds it.

Symbols (Wu et al. 2025, arXiv 2502.10385): F is m x p, one unit vector an image; eps the paper's squared precision; N
the number of groups that are thought of as pooled.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

Gamma = Literal["balanced", "theory"]


def coding_rate(features: Tensor, eps: float, pooled_groups: int = 1) -> Tensor:
    """1/2 logdet(I + p / (m N eps) F^T F) of each group, in nats.

    Computed over the smaller of F^T F and F F^T, which have the same determinant here. A group whose matrix is not
    positive definite in floating point (features that are not finite) gives NaN rather than the number that an
    unchecked factorisation would leave there.

    Args:
        features: [..., m, p] with rows of norm 1 at most; any float type, widened to fp32 at least.
        eps: as in the formula, already squared.
        pooled_groups: N.

    Returns:
        [...], one rate a group.
    """
    images, width = features.shape[-2:]
    with torch.autocast(features.device.type, enabled=False):
        features = features if features.dtype == torch.float64 else features.float()
        gram = features @ features.mT if images < width else features.mT @ features
        scaled = gram * (width / (images * pooled_groups * eps))
        identity = torch.eye(scaled.shape[-1], dtype=scaled.dtype, device=scaled.device)
        factor, info = torch.linalg.cholesky_ex(identity + scaled)
        rate = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return torch.where(info == 0, rate, torch.nan)


def gamma(kind: Gamma, images: int, width: int, eps: float, pooled_groups: int = 1) -> float:
    """The weight that sets the coding rate against the cosine.

    `balanced` is (p + N m) / (p N m), what the reference ships; `theory` is sqrt(eps N m) / p, from its analysis.
    """
    pooled = pooled_groups * images
    if kind == "theory":
        return math.sqrt(eps * pooled) / width
    return (width + pooled) / (width * pooled)


def highest_rate(images: int, width: int, eps: float, pooled_groups: int = 1) -> float:
    """The rate of unit vectors spread evenly over min(m, p) dimensions: no features reach more."""
    rank = min(images, width)
    return rank / 2 * math.log1p(width / (pooled_groups * eps * rank))


def lowest_rate(width: int, eps: float, pooled_groups: int = 1) -> float:
    """The rate of unit vectors that are all the same: what collapse looks like."""
    return math.log1p(width / (pooled_groups * eps)) / 2
