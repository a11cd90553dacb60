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
        from monai.losses import DiceLoss, FocalLoss  # takes seconds, and only training needs it

        self.dice = DiceLoss(sigmoid=True, smooth_nr=_SMOOTH, smooth_dr=_SMOOTH, reduction="none")
        self.by_pixel = nn.BCEWithLogitsLoss(reduction="none") if name == "dice_ce" else FocalLoss(reduction="none")
        self.register_buffer("weights", class_weights)

    @staticmethod
    def places(labelled: Tensor) -> Tensor:
        """int64 [k, 2], the labelled pairs of image and class, of bool [B, C] on the host."""
        return labelled.nonzero()

    def forward(self, logits: Tensor, target: Tensor, places: Tensor) -> Tensor:
        """The weighted mean over labelled pairs of image and class; 0 where there are none.

        Args:
            logits: float [B, C, h, w].
            target: float [B, C, H, W], the share of each pixel that is covered, in [0, 1].
            places: of the labelled pairs; how many they are the host knows by their shape, and does not wait.
        """
        logits = _at_size(logits, target)
        if not len(places):  # without any label the 0 still depends on every parameter, as several processes need
            return logits.sum() * 0.0
        # Unlabelled pairs leave before anything is computed: their gradient is 0, not something small.
        image, kind = places.unbind(1)
        found, wanted = logits[image, kind, None], target[image, kind, None]
        each = self.dice(found, wanted).flatten() + self.by_pixel(found, wanted).mean((1, 2, 3))
        return each.mean() if self.weights is None else (self.weights[kind] * each).sum() / self.weights[kind].sum()


class ExclusiveLoss(nn.Module):
    """The same where a pixel is one class or none: softmax over background, the first plane, and the classes.

    A picture in which a class is not labelled is left out, because its background may be of that class.

    Args:
        name, class_weights: as for `MaskLoss`; the background weighs 1.
    """

    weights: Tensor | None

    def __init__(self, name: LossName = "dice_ce", class_weights: Tensor | None = None) -> None:
        super().__init__()
        from monai.losses import DiceLoss, FocalLoss

        self.dice = DiceLoss(softmax=True, smooth_nr=_SMOOTH, smooth_dr=_SMOOTH, reduction="none")
        self.focal = FocalLoss(reduction="none") if name == "dice_focal" else None
        # Given weights, MONAI's losses have the host look at each of them in every step.
        self.register_buffer("weights", None if class_weights is None else torch.cat([torch.ones(1), class_weights]))

    @staticmethod
    def places(labelled: Tensor) -> Tensor:
        """int64 [k], the pictures that all classes are labelled in, of bool [B, C] on the host."""
        return labelled.all(1).nonzero()[:, 0]

    def forward(self, logits: Tensor, target: Tensor, places: Tensor) -> Tensor:
        """The mean over the pictures at `places`; 0 where there are none.

        Args:
            logits: float [B, 1 + C, h, w].
            target: float [B, C, H, W], the share of each pixel that is covered, in [0, 1].
            places: of the pictures that count.
        """
        logits = _at_size(logits, target)
        if not len(places):
            return logits.sum() * 0.0
        found, covered = logits[places], target[places]
        total = covered.sum(1, keepdim=True)
        planes = torch.cat([(1 - total).clamp(min=0), covered], 1) / total.clamp(min=1)
        weights = 1.0 if self.weights is None else self.weights[:, None, None]
        dice = (weights * self.dice(found, planes)).mean()
        if self.focal is None:
            return dice + F.cross_entropy(found, planes, self.weights)
        return dice + (weights * self.focal(found, planes)).mean()


def _at_size(logits: Tensor, target: Tensor) -> Tensor:
    if logits.shape[-2:] == target.shape[-2:]:
        return logits
    return F.interpolate(logits, size=target.shape[-2:], mode="bilinear", align_corners=False)


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
