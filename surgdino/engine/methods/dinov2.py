"""DINOv2 (Oquab et al. 2023, arXiv 2304.07193): DINO on class tokens, iBOT (arXiv 2111.07832) on masked patches, KoLeo.

Symbols: b images of a micro-batch, B of the global batch, 2 global and L local views, D the backbone's width, K
prototypes, M masked patches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from surgdino.backbone.vit import Backbone, Features
from surgdino.engine.method import Method, Terms
from surgdino.engine.methods.dinov2_settings import Settings
from surgdino.engine.methods.parts.fused import Fuse, plain
from surgdino.engine.methods.parts.heads import PrototypeHead
from surgdino.engine.methods.parts.prototypes import (
    PrototypeTargets,
    certainty,
    cross_entropy,
    cross_entropy_of_views,
    no_information,
    sinkhorn,
)
from surgdino.engine.methods.parts.spread import WORST, koleo
from surgdino.engine.methods.parts.views import GLOBAL_VIEWS, Views, by_view, teacher_tokens
from surgdino.engine.processes import Pool, ProcessGroup


@dataclass
class TokenTargets(PrototypeTargets):
    """Attributes:
    patches: [M, K], distributions.
    """

    patches: Tensor


class SeparateHeads(nn.Module):
    """One head with prototypes for class tokens, another for patch tokens."""

    def __init__(self, settings: Settings, embed_dim: int) -> None:
        super().__init__()
        shape = (embed_dim, settings.head_hidden, settings.head_out, settings.prototypes)
        self.cls, self.patch = PrototypeHead(*shape), PrototypeHead(*shape)

    def forward(self, cls: Tensor, patches: Tensor, frozen: bool = False) -> tuple[Tensor, Tensor]:
        """[n, D] and [M, D] -> [n, K] and [M, K]."""
        return self.cls(cls, frozen), self.patch(patches, frozen)


class DINOv2(Method[TokenTargets]):
    """cls + patch_weight * patch + koleo_weight * koleo."""

    settings: Settings
    least_group = 2  # KoLeo needs a neighbour

    def __init__(self, settings: Settings, backbone: Backbone) -> None:
        super().__init__(settings, backbone)
        self.group_size = settings.group_size
        self.mask_probability, self.mask_ratio = settings.mask_probability, settings.mask_ratio

    def build_head(self, embed_dim: int) -> SeparateHeads:
        """Separate heads for class and patch tokens."""
        return SeparateHeads(self.settings, embed_dim)

    def targets(self, views: Sequence[Views], processes: ProcessGroup, progress: float) -> list[TokenTargets]:
        """Of the class tokens of both global views, and of the patch tokens where the student's are masked."""
        tokens = [teacher_tokens(self.backbone, micro) for micro in views]
        outputs = [self.head(of.cls, of.patches) for of in tokens]
        cls, patches = zip(*outputs, strict=True)
        return self.assign([of.cls for of in tokens], cls, patches, processes, progress)

    def assign(
        self,
        features: Sequence[Tensor],
        cls: Sequence[Tensor],
        patches: Sequence[Tensor],
        processes: ProcessGroup,
        progress: float,
    ) -> list[TokenTargets]:
        """Sinkhorn-Knopp over all class tokens of the global batch, and over all its masked patches.

        Args:
            features, cls, patches: of each micro-batch, class tokens [2b, D], their cosines [2b, K], and the cosines of
                the patches [M, K].
        """
        settings = self.settings
        temperature = settings.teacher_temperature(progress)
        rows = sinkhorn(cls, temperature, settings.sinkhorn_iterations, processes.sum, self.fuse)
        of_patches = sinkhorn(patches, temperature, settings.sinkhorn_iterations, processes.sum, self.fuse)
        of_views = [by_view(row, len(row) // GLOBAL_VIEWS) for row in rows]
        entropy, information = certainty(of_views, processes.sum)
        frozen = progress < settings.freeze_last_layer
        return [
            TokenTargets(each, cls, entropy, information, frozen, patches)
            for each, cls, patches in zip(features, of_views, of_patches, strict=True)
        ]

    def group_features(self, cls: Tensor, views: Views, targets: TokenTargets) -> dict[str, Tensor]:
        """What KoLeo spreads out: the backbone's class tokens of the masked global views, [2, b, D]."""
        return {"cls": by_view(cls, views.images)}

    def loss(self, tokens: Features, views: Views, targets: TokenTargets, pool: Pool) -> tuple[Tensor, Terms]:
        """Of the masked global views and the local views, see `objective`."""
        cls, patches = self.head(tokens.cls, tokens.patches, targets.frozen)
        spread = by_view(tokens.cls[: len(views.global_crops)], views.images)
        cls = by_view(cls, views.images)
        return objective(cls, patches, spread, targets, views.mask_weight, self.settings, pool, self.fuse)

    def collapse(self, images: int) -> dict[str, float]:
        """All tokens look the same: Sinkhorn-Knopp spreads them over all prototypes alike."""
        settings = self.settings
        uniform = math.log(settings.prototypes)
        patch, apart = settings.mask_probability * uniform, 2 * WORST
        loss = uniform + settings.patch_weight * patch + settings.koleo_weight * apart
        return {"loss": loss, "cls": uniform, "patch": patch, "koleo": apart, "entropy": uniform, "information": 0.0}

    def collapse_warning(self, terms: dict[str, float], images: int) -> str | None:
        """Where every image has the same targets."""
        return no_information(terms)


def objective(
    student_cls: Tensor,
    student_patches: Tensor,
    spread: Tensor,
    targets: TokenTargets,
    mask_weight: Tensor,
    settings: Settings,
    pool: Pool | None = None,
    fuse: Fuse = plain,
) -> tuple[Tensor, Terms]:
    """cls + patch_weight * patch + koleo_weight * koleo, in fp32.

    Args:
        student_cls: [2 + L, b, K], cosines, global views first.
        student_patches: [M, K], cosines.
        spread: [2, b, D], the backbone's class tokens of the global views.
        targets: the teacher's.
        mask_weight: [M], one over the masked patches of the same view.
        pool: the rest of the batch; None where these are all B images.
        fuse: of the method.

    Returns:
        The loss, its KoLeo times `pool.share`; and without gradient `loss`, `cls` (cross-entropy, mean over pairs of
        views), `patch` (cross-entropy, mean over the 2b views, unmasked ones counting 0), `koleo` (mean over groups, in
        sum over the two global views, as published), and `entropy` and `information` of the class targets.
    """
    pool = pool or Pool()
    cls = fuse(cross_entropy_of_views)(student_cls, targets.cls, settings.student_temp)
    with torch.autocast(student_cls.device.type, enabled=False):
        patch = fuse(cross_entropy)(student_patches, targets.patches, settings.student_temp)
        patch = (patch * mask_weight).sum() / targets.cls[..., 0].numel()
        apart = koleo(pool.groups("cls", spread, settings.group_size)).sum(0).mean()
        alone = cls + settings.patch_weight * patch
    loss = alone + settings.koleo_weight * apart
    terms = {"loss": loss, "cls": cls, "patch": patch, "koleo": apart}
    terms |= {"entropy": targets.entropy, "information": targets.information}
    return alone + pool.share * settings.koleo_weight * apart, {name: term.detach() for name, term in terms.items()}
