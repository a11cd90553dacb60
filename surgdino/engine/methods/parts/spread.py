"""What spreads the images of a group apart: the coding rate and KoLeo, in fp32 or wider also under autocast.

Symbols of the coding rate (Wu et al. 2025, arXiv 2502.10385): F is m x p, one unit vector an image; eps the squared
precision of the paper; N the number of groups that are thought of as pooled.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from surgdino.engine.methods.simdinov2_settings import Gamma

_EPS = 1e-8  # of KoLeo
WORST = -math.log(_EPS)  # KoLeo of features that are all the same


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
        gram = _product(features, features.mT) if images < width else _product(features.mT, features)
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


def is_lowest(rate: float, lowest: float, highest: float) -> bool:
    """Whether a rate lies in the lowest twentieth of what it can be: the images look the same, or nearly."""
    return rate <= lowest + 0.05 * (highest - lowest)


def koleo(features: Tensor) -> Tensor:
    """Minus the mean logarithm of the distance to the nearest neighbour (Sablayrolles et al. 2019, arXiv 1806.03198).

    Args:
        features: [..., m, D] of any length, brought to length 1 here; m at least 2. Neighbours are looked for among the
            m of a group only.

    Returns:
        [...], one value a group, `WORST` where all features are the same.
    """
    with torch.autocast(features.device.type, enabled=False):
        features = features if features.dtype == torch.float64 else features.float()
        unit = F.normalize(features, dim=-1, eps=_EPS)
        with torch.no_grad():
            cosines = _product(unit, unit.mT)
            cosines.diagonal(dim1=-2, dim2=-1).fill_(-torch.inf)
            nearest = cosines.argmax(-1, keepdim=True)
        neighbours = unit.gather(-2, nearest.expand_as(unit))
        distances = torch.linalg.vector_norm(unit - neighbours, dim=-1)
        return -(distances + _EPS).log().mean(-1)


def _product(left: Tensor, right: Tensor) -> Tensor:
    """left @ right, in fp32 also where the networks' fp32 products round their factors to TF32.

    With p / (m eps) = 80 (64 images, p = 256) the scaled Gram matrix of a collapsing group reaches 5,000 beside
    the identity: factors with the 11 digits of TF32 are off by more than 1 there, and the factorisation fails.
    """
    return _Product.apply(left, right) if torch.backends.cuda.matmul.allow_tf32 else left @ right


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor) -> Tensor:
        ctx.save_for_backward(left, right)
        with _no_tf32():
            return left @ right

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        left, right = ctx.saved_tensors
        with _no_tf32():
            return grad @ right.mT, left.mT @ grad


@contextmanager
def _no_tf32() -> Iterator[None]:
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = True
