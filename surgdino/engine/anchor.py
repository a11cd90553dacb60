"""Gram anchoring: the relations between a crop's patches stay those that a frozen backbone sees in the clean crop.

Siméoni et al. 2025 (DINOv3, arXiv 2508.10104). There the frozen backbone is an earlier teacher; here it is the start of
the run, whose dense features natural images made sharp, or the teacher of every `train.gram_every` steps.

Symbols: b images of a micro-batch, 2 global views, N patches of a view, D the backbone's width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from surgdino.backbone.vit import Backbone
from surgdino.engine.methods.parts.views import Views


@torch.no_grad()
def anchor_tokens(anchor: Backbone, views: Views) -> Tensor:
    """The frozen backbone's patch tokens of the clean global crops, [2b, N, D].

    Those of larger crops are brought to the student's grid (bicubic, without antialiasing, as published).
    """
    patches = anchor(views.clean).patches
    sides = [crops.shape[-1] // anchor.patch_size for crops in (views.clean, views.global_crops)]
    if sides[0] == sides[1]:
        return patches
    grid = patches.float().mT.unflatten(2, (sides[0], sides[0]))
    return F.interpolate(grid, size=(sides[1], sides[1]), mode="bicubic", align_corners=False).flatten(2).mT


def gram_loss(student: Tensor, anchor: Tensor) -> Tensor:
    """Mean squared difference of the cosines between the patches of a crop, in fp32; [n, N, D] both."""
    with torch.autocast(student.device.type, enabled=False):
        ours, theirs = (F.normalize(tokens.float(), dim=-1) for tokens in (student, anchor))
        return (ours @ ours.mT - theirs @ theirs.mT).square().mean()
