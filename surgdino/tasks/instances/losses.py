"""Losses of detections, and which detection should have found which object.

All are means over pictures of a picture's own mean over its objects, so that a batch may be split among processes.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

_EPS = 1e-6


def corners(boxes: Tensor) -> Tensor:
    """(centre x, centre y, width, height) -> (x0, y0, x1, y1), [..., 4]."""
    return torch.cat([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2], -1)


def generalised_iou(first: Tensor, second: Tensor) -> Tensor:
    """Rezatofighi et al. 2019, of boxes [..., 4] by centre and size that broadcast: -1 to 1."""
    a, b = corners(first), corners(second)
    inner = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    outer = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).prod(-1)
    union = (first[..., 2:].prod(-1) + second[..., 2:].prod(-1) - inner).clamp(min=_EPS)
    return inner / union - (outer - union) / outer.clamp(min=_EPS)


def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """1 - soft Dice over the last axis, smoothed by one pixel; [...]."""
    found = logits.sigmoid()
    return 1 - (2 * (found * target).sum(-1) + 1) / (found.sum(-1) + target.sum(-1) + 1)


def heat_loss(logits: Tensor, heat: Tensor, counts: Tensor, weight: Tensor) -> Tensor:
    """The focal loss of centres (Law and Deng 2018; Zhou et al. 2019, equation 1): a mean over pictures.

    Args:
        logits, heat: [B, C, h, w]; heat is 1 at centres and falls off around them.
        counts: [B] objects.
        weight: [B, C, h, w], 0 where nothing is wrong.
    """
    found = logits.sigmoid().clamp(1e-4, 1 - 1e-4)
    right = (heat == 1) * (1 - found).pow(2) * found.log()
    wrong = (heat < 1) * (1 - heat).pow(4) * found.pow(2) * (1 - found).log() * weight
    return (-(right + wrong).sum((1, 2, 3)) / counts.clamp(min=1)).mean()


def mean_of_pictures(values: Tensor, pictures: Tensor, batch: int) -> Tensor:
    """The mean over pictures of the mean over each one's objects; pictures without an object count as 0.

    Args:
        values: [k], of objects.
        pictures: int64 [k], which picture an object is in.
    """
    counts = values.new_zeros(batch).index_add_(0, pictures, torch.ones_like(values)).clamp(min=1)
    return (values / counts[pictures]).sum() / batch


def assigned(costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(detections, objects) of the cheapest pairing (Kuhn 1955) by cost [detections, objects]."""
    return linear_sum_assignment(np.nan_to_num(costs, nan=1e6, posinf=1e6, neginf=-1e6))


def mask_points(logits: Tensor, target: Tensor, points: int, importance: float = 0.75, oversample: int = 3) -> tuple:
    """Logits and targets [k, points] where the mask loss looks: mostly where the mask is least sure (Kirillov et al.
    2020, section 3.1). Masks of no more pixels than that are read whole.

    Args:
        logits: [k, h, w].
        target: [k, H, W], covered shares.
    """
    if target.shape[1:].numel() <= points:
        logits = F.interpolate(logits[:, None], size=target.shape[1:], mode="bilinear", align_corners=False)[:, 0]
        return logits.flatten(1), target.flatten(1)
    with torch.no_grad():
        places = torch.rand(len(logits), oversample * points, 2, device=logits.device)
        doubt = -_at(logits, places).abs()
        unsure = doubt.topk(round(importance * points), dim=1).indices
        places = torch.cat(
            [places.gather(1, unsure[..., None].expand(-1, -1, 2)), places[:, unsure.shape[1] : points]], 1
        )
    return _at(logits, places), _at(target, places)


def _at(maps: Tensor, places: Tensor) -> Tensor:
    """[k, n]: maps [k, h, w] at places [k, n, 2] of x, y in 0 to 1."""
    return F.grid_sample(maps[:, None], 2 * places[:, :, None] - 1, align_corners=False)[:, 0, :, 0]
