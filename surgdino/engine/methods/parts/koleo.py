"""KoLeo: what pushes the images of a batch apart. In fp32 or wider, whatever surrounds it."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

_EPS = 1e-8


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
            cosines = unit @ unit.mT
            cosines.diagonal(dim1=-2, dim2=-1).fill_(-torch.inf)
            nearest = cosines.argmax(-1, keepdim=True)
        neighbours = unit.gather(-2, nearest.expand_as(unit))
        distances = torch.linalg.vector_norm(unit - neighbours, dim=-1)
        return -(distances + _EPS).log().mean(-1)


WORST = -math.log(_EPS)
