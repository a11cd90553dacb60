"""Losses for many classes of which few are there: cross-entropy, focal and asymmetric loss as one formula."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

LossName = Literal["bce", "focal", "asymmetric"]


@dataclass(frozen=True)
class Focus:
    """How much less a decision counts the surer it is.

    Attributes:
        positive: exponent of (1 - p) on positives.
        negative: exponent of p on negatives.
        margin: taken from p of the negatives; those below it count for nothing.
    """

    positive: float
    negative: float
    margin: float


# focal: Lin et al. 2017, section 4; asymmetric: Ridnik et al. 2021, section 3.
FOCUS: dict[LossName, Focus] = {
    "bce": Focus(0.0, 0.0, 0.0),
    "focal": Focus(2.0, 2.0, 0.0),
    "asymmetric": Focus(0.0, 4.0, 0.05),
}


def multilabel_loss(logits: Tensor, target: Tensor, name: LossName = "bce", positive: Tensor | None = None) -> Tensor:
    """The loss of every class, summed over classes and averaged over frames.

    A sum, so that what one class's weights learn does not hang on how many others there are. With p the probability
    and q = max(p - margin, 0) (Ridnik et al. 2021, eq. 7):
    - (1 - p)^positive log p of a class that is there, - q^negative log(1 - q) of one that is not.

    Args:
        logits: float32 [B, C].
        target: [B, C] of 0 and 1.
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
    return torch.where(target > 0, present, absent).sum(1).mean()
