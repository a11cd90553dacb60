"""Losses over the frames of a video: weighted cross-entropy of every stage, and smoothness in time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# Of the smoothing loss: larger jumps than this, as log-probabilities, count no more.
_TRUNCATION = 4.0


def median_frequency_weights(targets: np.ndarray, classes: int) -> np.ndarray:
    """Weight of each class: the median frequency over its own, float32 [C]; 1 for a class without a frame.

    Eigen & Fergus 2015, section 6.3.2, as TeCNO uses it; frequencies are over all training frames.

    Args:
        targets: class ids [n].
        classes: C.
    """
    counts = np.bincount(targets, minlength=classes).astype(np.float64)
    seen = counts > 0
    weights = np.ones(classes)
    if seen.any():
        weights[seen] = np.median(counts[seen]) / counts[seen]
    return weights.astype(np.float32)


def frame_loss(logits: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
    """Cross-entropy times the weight of each frame's class, mean over frames.

    Divided by the frames and not by their weights, so that it is the same however a batch is shared out.

    Args:
        logits: [T, C].
        targets: class ids, int64 [T].
        weights: [C], of mean 1 over the training frames, or None.
    """
    return F.cross_entropy(logits.float(), targets, weight=weights, reduction="sum") / len(targets)


def stages_loss(
    stages: Sequence[Tensor], targets: Tensor, weights: Tensor | None, smoothing: float
) -> dict[str, Tensor]:
    """The loss of a temporal model: the same for each of its stages, added up (TeCNO, MS-TCN).

    Args:
        stages: logits [T, C] each.
        targets: class ids, int64 [T].
        weights: [C], or None.
        smoothing: weight of `smoothing_loss`.

    Returns:
        `loss`, and `smooth`, the smoothing loss summed over stages, where it has a weight.
    """
    loss = torch.stack([frame_loss(logits, targets, weights) for logits in stages]).sum()
    if not smoothing:
        return {"loss": loss}
    smooth = torch.stack([smoothing_loss(logits) for logits in stages]).sum()
    return {"loss": loss + smoothing * smooth, "smooth": smooth}


def smoothing_loss(logits: Tensor) -> Tensor:
    """Truncated mean squared difference of log-probabilities from frame to frame, logits [T, C].

    (1 / TC) sum min(|log p_t - log p_(t-1)|, 4)^2, no gradient through the earlier frame (Farha & Gall, CVPR 2019,
    eqs. 8 to 10). 0 for a single frame.
    """
    if len(logits) < 2:
        return logits.float().sum() * 0
    log_p = logits.float().log_softmax(1)
    jumps = (log_p[1:] - log_p[:-1].detach()).abs()
    return jumps.clamp(max=_TRUNCATION).square().sum() / log_p.numel()
