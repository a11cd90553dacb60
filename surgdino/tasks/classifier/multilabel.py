"""Losses for many classes of which few are present, and how rare classes are balanced.

Cross-entropy, focal and asymmetric loss are one formula. Balance: weights of positives, biases to start from, and
frames that are drawn more often.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from surgdino.tasks.settings import MultilabelLoss


@dataclass(frozen=True)
class Focus:
    """How the weight of a decision falls with its confidence.

    Attributes:
        positive: exponent of (1 - p) on positives.
        negative: exponent of p on negatives.
        margin: taken from p of the negatives; those below it count for nothing.
    """

    positive: float
    negative: float
    margin: float


# focal: Lin et al. 2017, section 4; asymmetric: Ridnik et al. 2021, section 3.
FOCUS: dict[MultilabelLoss, Focus] = {
    "bce": Focus(0.0, 0.0, 0.0),
    "focal": Focus(2.0, 2.0, 0.0),
    "asymmetric": Focus(0.0, 4.0, 0.05),
}


def multilabel_loss(
    logits: Tensor, target: Tensor, name: MultilabelLoss = "bce", positive: Tensor | None = None
) -> Tensor:
    """The loss of every class, summed over classes and averaged over frames.

    A sum, so that what one class's weights learn does not depend on the number of classes. With p the probability
    and q = max(p - margin, 0) (Ridnik et al. 2021, eq. 7):
    - (1 - p)^positive log p of a class that is there, - q^negative log(1 - q) of one that is not.

    Args:
        logits: float32 [B, C].
        target: [B, C] of 0 and 1; or floating, soft labels between: the two sides then count by their share.
        name: a key of FOCUS.
        positive: [C], weights of the positives; None is 1.
    """
    focus, p = FOCUS[name], logits.sigmoid()
    present = -F.logsigmoid(logits)
    if focus.positive:
        present = present * (1 - p) ** focus.positive
    absent = -F.logsigmoid(-logits)
    if focus.margin:
        shifted = (p - focus.margin).clamp(min=0)
        absent = -torch.log1p(-shifted)
    else:
        shifted = p
    if focus.negative:
        absent = absent * shifted**focus.negative
    if positive is not None:
        present = present * positive
    if target.is_floating_point():
        return (target * present + (1 - target) * absent).sum(1).mean()
    return torch.where(target > 0, present, absent).sum(1).mean()


def positive_weights(targets: np.ndarray, cap: float) -> np.ndarray:
    """The square root of negatives per positive of each class, between 1 and `cap`, float32 [C].

    The full ratio would balance the two sides, and a class seen in three frames would cause false alarms everywhere;
    the root goes half the way. A class without a positive has weight 1.

    Args:
        targets: 0/1 [n, C].
        cap: 1 or more; 1 weights nothing.
    """
    positives = targets.sum(0, dtype=np.float64)
    ratio = (len(targets) - positives) / np.maximum(positives, 1)
    return np.where(positives > 0, np.sqrt(ratio).clip(1, cap), 1).astype(np.float32)


def prior_logits(targets: np.ndarray) -> np.ndarray:
    """The logit of each class's share of the frames, float32 [C], half a frame added to either side."""
    share = (targets.sum(0, dtype=np.float64) + 0.5) / (len(targets) + 1)
    return np.log(share / (1 - share)).astype(np.float32)


def repeat_factors(targets: np.ndarray, threshold: float) -> np.ndarray | None:
    """How often a frame is drawn: the most that one of its classes asks for, float64 [n].

    A class in a share f of the frames asks for max(1, sqrt(threshold / f)), the repeat factor of LVIS (Gupta, Dollar &
    Girshick 2019, section 4.2).

    Args:
        targets: 0/1 [n, C].
        threshold: the share below which a class counts as rare; 0 draws all frames alike.

    Returns:
        None where all frames are drawn alike.
    """
    share = targets.mean(0, dtype=np.float64)
    factors = np.where(share > 0, np.sqrt(threshold / np.maximum(share, 1e-12)), 1).clip(min=1)
    weights = np.where(targets > 0, factors, 1).max(1, initial=1)
    return weights if (weights != weights[0]).any() else None
