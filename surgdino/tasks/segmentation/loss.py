"""MONAI's losses over labelled classes: what is unlabelled in an image adds nothing to the loss and has no gradient.

Classes may overlap, and an image may show none of them, so each is decided by itself, with a sigmoid; where they are
said to exclude each other, a pixel has one of them or none, with a softmax.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from surgdino.tasks.segmentation.settings import LossName

# Added to both sides of a Dice ratio, in pixels: with less, a class that is absent from an image gives no gradient.
_SMOOTH = 1.0


class MaskLoss(nn.Module):
    """Dice plus cross-entropy, or Dice plus focal loss, of every labelled class of every image by itself.

    Dice does not depend on the size of a class, which balances it against its background; `class_weights` balance
    classes against each other where some are in few images.

    Args:
        name: `dice_ce` or `dice_focal`, after MONAI's DiceCELoss and DiceFocalLoss.
        class_weights: [C], of any scale; None for equal ones.
    """

    weights: Tensor | None

    def __init__(self, name: LossName = "dice_ce", class_weights: Tensor | None = None) -> None:
        super().__init__()
        from monai.losses import DiceCELoss, DiceFocalLoss  # takes seconds, and only training needs it

        kind = {"dice_ce": DiceCELoss, "dice_focal": DiceFocalLoss}[name]
        # Given one channel, MONAI takes the binary cross-entropy, not a softmax over classes.
        self.of_class = kind(sigmoid=True, smooth_nr=_SMOOTH, smooth_dr=_SMOOTH)
        self.register_buffer("weights", class_weights)

    def forward(self, logits: Tensor, target: Tensor, labelled: Tensor) -> Tensor:
        """The weighted mean over labelled pairs of image and class; 0 where there are none.

        Args:
            logits: float [B, C, h, w].
            target: float [B, C, H, W], the share of each pixel that is covered, in [0, 1].
            labelled: bool [B, C].
        """
        if logits.shape[-2:] != target.shape[-2:]:
            logits = F.interpolate(logits, size=target.shape[-2:], mode="bilinear", align_corners=False)
        total, weight = logits.new_zeros(()), 0.0
        for place in labelled.any(0).nonzero().flatten().tolist():
            # Unlabelled images leave before anything is computed: their gradient is 0, not something small.
            rows = labelled[:, place]
            share = int(rows.sum()) * (1.0 if self.weights is None else float(self.weights[place]))
            total = total + share * self.of_class(logits[rows, place, None], target[rows, place, None])
            weight += share
        # Without any label the 0 still depends on every parameter, as several processes need.
        return total / weight if weight else logits.sum() * 0.0


class ExclusiveLoss(nn.Module):
    """The same where a pixel is one class or none: softmax over background, the first plane, and the classes.

    A picture in which a class is not labelled is left out, because its background may be of that class.

    Args:
        name, class_weights: as for `MaskLoss`; the background weighs 1.
    """

    def __init__(self, name: LossName = "dice_ce", class_weights: Tensor | None = None) -> None:
        super().__init__()
        from monai.losses import DiceCELoss, DiceFocalLoss

        kind = {"dice_ce": DiceCELoss, "dice_focal": DiceFocalLoss}[name]
        weight = None if class_weights is None else torch.cat([torch.ones(1), class_weights])
        self.of_pictures = kind(softmax=True, smooth_nr=_SMOOTH, smooth_dr=_SMOOTH, weight=weight)

    def forward(self, logits: Tensor, target: Tensor, labelled: Tensor) -> Tensor:
        """The mean over pictures that all classes are labelled in; 0 where there are none.

        Args:
            logits: float [B, 1 + C, h, w].
            target: float [B, C, H, W], the share of each pixel that is covered, in [0, 1].
            labelled: bool [B, C].
        """
        if logits.shape[-2:] != target.shape[-2:]:
            logits = F.interpolate(logits, size=target.shape[-2:], mode="bilinear", align_corners=False)
        rows = labelled.all(1)
        if not rows.any():
            return logits.sum() * 0.0
        covered = target[rows]
        total = covered.sum(1, keepdim=True)
        planes = torch.cat([(1 - total).clamp(min=0), covered], 1) / total.clamp(min=1)
        return self.of_pictures(logits[rows], planes)


def class_weights(present: Tensor) -> Tensor | None:
    """Weights [C] that balance classes: the inverse square root of the number of training images that show each.

    With the full inverse a class of five images would dominate the gradient. None where all are equal.

    Args:
        present: bool [n, C], whether an image shows the class.
    """
    counts = present.sum(0).double().clamp(min=1)
    if (counts == counts[0]).all():
        return None
    weights = counts.rsqrt()
    return (weights / weights.mean()).float()
