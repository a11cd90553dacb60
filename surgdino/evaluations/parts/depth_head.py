"""A linear head that reads depth from patch tokens, and what it learns by; all lengths in mm.

Depth is the mean of the centres of bins (Bhat et al. 2021, AdaBins, arXiv 2011.14141), spaced evenly or by logarithm
as in DINOv2 (Oquab et al. 2023, arXiv 2304.07193), each weighted by its logit without softmax.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

Spacing = Literal["uniform", "log"]
BINS = 256
UPSAMPLING = 4  # of the patch grid, before bins are mixed
_FLOOR = 0.1  # of a bin's weight
_PRIOR = 0.9  # of all weight, before anything is learnt
_EPSILON = 1e-3  # mm
_MEAN_SHARE = 0.15  # of the mean in the scale-invariant loss
_WARM_UP = 100  # steps in which the mean alone counts
_WEIGHT_DECAY, _CLIP = 0.01, 35.0


class DepthHead(nn.Module):
    """Patch tokens [b, side, side, D] to depth [b, 4 side, 4 side].

    Logits are enlarged, not tokens: a linear layer and bilinear interpolation may change places.
    """

    centres: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: Tensor, deviation: Tensor, centres: Tensor, known: Tensor) -> None:
        """Args:
        mean, deviation: [D] of the training tokens; they take the place of DINOv3's batch norm.
        centres: of the bins, ascending.
        known: all depths of training. Bins begin with their share of these, so that no steps are spent on the scale.
        """
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation.where(deviation > 0, 1.0))
        self.register_buffer("centres", centres)
        self.linear = nn.Linear(len(mean), len(centres))
        nn.init.normal_(self.linear.weight, std=0.01, generator=torch.Generator().manual_seed(0))
        shares = torch.bincount(torch.bucketize(known, centres[1:] / 2 + centres[:-1] / 2), minlength=len(centres))
        with torch.no_grad():
            self.linear.bias.copy_(shares / max(len(known), 1) * len(centres) * _FLOOR * _PRIOR / (1 - _PRIOR))

    def forward(self, tokens: Tensor) -> Tensor:
        """Depth between the first bin and the last."""
        logits = self.linear((tokens - self.mean) / self.deviation).permute(0, 3, 1, 2)
        weights = F.interpolate(logits, scale_factor=UPSAMPLING, mode="bilinear").relu() + _FLOOR
        return torch.einsum("bkhw,k->bhw", weights, self.centres) / weights.sum(1)


def centres_of(spacing: Spacing, nearest: float, farthest: float) -> Tensor:
    """The bins' centres, float32 [256] mm: as far apart from each other, or as much larger than the one before."""
    if spacing == "log":
        return torch.logspace(math.log10(nearest), math.log10(farthest), BINS)
    return torch.linspace(nearest, farthest, BINS)


def sig_loss(predicted: Tensor, truth: Tensor, *, warm_up: bool = False) -> Tensor:
    """Scale-invariant logarithmic loss over the pixels whose truth is known (not NaN), as DINOv2 has it.

    sqrt(var(g) + 0.15 mean(g)^2), g = ln(predicted) - ln(truth); without the variance in the warm-up.
    """
    known = ~truth.isnan()
    apart = (predicted[known] + _EPSILON).log() - (truth[known] + _EPSILON).log()
    squared = _MEAN_SHARE * apart.mean() ** 2
    return (squared if warm_up or len(apart) < 2 else squared + apart.var()).clamp_min(1e-12).sqrt()


def gradient_loss(predicted: Tensor, truth: Tensor) -> Tensor:
    """How the logarithmic error changes over two pixels, at four scales, over the pixels whose truth is known.

    Args:
        predicted, truth: [b, H, W].
    """
    total = predicted.new_zeros(())
    for step in (1, 2, 4, 6):
        found, true = predicted[:, ::step, ::step], truth[:, ::step, ::step]
        known = ~true.isnan()
        apart = (found + _EPSILON).log() - (true.where(known, 1.0) + _EPSILON).log()
        for axis in (1, 2):
            length = apart.shape[axis] - 2
            if length > 0:
                both = known.narrow(axis, 2, length) & known.narrow(axis, 0, length)
                change = (apart.narrow(axis, 2, length) - apart.narrow(axis, 0, length)).abs()
                total = total + change[both].sum() / known.sum().clamp_min(1)
    return total


@dataclass(frozen=True)
class Fitting:
    """How a head is fitted: AdamW with one cycle of the rate, as in DINOv3's evaluation.

    Attributes:
        gradient: weight of the gradient loss; 0 leaves it out.
    """

    steps: int
    batch: int
    lr: float
    gradient: float


def fit(head: nn.Module, fitting: Fitting, count: int, read: Callable[[np.ndarray], tuple[Tensor, Tensor]]) -> None:
    """Fit the head to `count` pictures; the same seed draws the same ones.

    Args:
        read: places of pictures -> tokens [b, side, side, D] and depth of the head's size [b, h, w], NaN where unknown.
    """
    optimizer = torch.optim.AdamW(head.parameters(), lr=fitting.lr, weight_decay=_WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, fitting.lr, fitting.steps)
    rng, order = np.random.default_rng(0), np.empty(0, np.int64)
    for step in range(fitting.steps):
        if not len(order):
            order = rng.permutation(count)
        tokens, truth = read(order[: fitting.batch])
        order = order[fitting.batch :]
        predicted = head(tokens)
        loss = sig_loss(predicted, truth, warm_up=step < min(_WARM_UP, fitting.steps // 4))
        if fitting.gradient:
            loss = loss + fitting.gradient * gradient_loss(predicted, truth)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(head.parameters(), _CLIP)
        optimizer.step()
        schedule.step()
