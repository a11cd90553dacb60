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
from surgdino.engine.methods.parts.views import Views, on_grid


@torch.no_grad()
def anchor_tokens(anchor: Backbone, views: Views) -> Tensor:
    """The frozen backbone's patch tokens of the clean global crops, [2b, N, D].

    Those of larger crops are brought to the student's grid.
    """
    side = views.global_crops.shape[-1] // anchor.patch_size
    return on_grid(anchor(views.clean).patches, (side, side))


def gram_loss(student: Tensor, anchor: Tensor) -> Tensor:
    """Mean squared difference of the cosines between the patches of a crop, in fp32; [n, N, D] both."""
    with torch.autocast(student.device.type, enabled=False):
        ours, theirs = (F.normalize(tokens.float(), dim=-1) for tokens in (student, anchor))
        return (ours @ ours.mT - theirs @ theirs.mT).square().mean()
