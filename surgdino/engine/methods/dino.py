"""DINO (Caron et al. 2021, arXiv 2104.14294): from any crop, predict the teacher's prototypes of another.

Symbols: b images of a micro-batch, 2 global and L local views, D the backbone's width, K prototypes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from surgdino.backbone.vit import Features
from surgdino.engine.method import Method, Terms
from surgdino.engine.methods.dino_settings import Settings
from surgdino.engine.methods.parts.heads import PrototypeHead
from surgdino.engine.methods.parts.prototypes import (
    PrototypeTargets,
    certainty,
    cross_entropy_of_views,
    no_information,
)
from surgdino.engine.methods.parts.views import Views, by_view, teacher_tokens
from surgdino.engine.processes import Pool, ProcessGroup


class CentredHead(PrototypeHead):
    """With the centre [K] of the outputs, a buffer."""

    centre: Tensor

    def __init__(self, embed_dim: int, hidden: int, width: int, prototypes: int) -> None:
        super().__init__(embed_dim, hidden, width, prototypes)
        self.register_buffer("centre", torch.zeros(prototypes))


class DINO(Method[PrototypeTargets]):
    """Mean cross-entropy of the student's views with the teacher's other view."""

    settings: Settings
    head: CentredHead
    next_centre: Tensor | None = None  # of the step under way

    def build_head(self, embed_dim: int) -> CentredHead:
        """D -> K."""
        settings = self.settings
        return CentredHead(embed_dim, settings.head_hidden, settings.head_out, settings.prototypes)

    def targets(self, views: Sequence[Views], processes: ProcessGroup, progress: float) -> list[PrototypeTargets]:
        """Distributions of the class tokens of both whole global views."""
        tokens = [teacher_tokens(self.backbone, micro) for micro in views]
        outputs = [by_view(self.head(of.cls), micro.images) for of, micro in zip(tokens, views, strict=True)]
        return self.assign([of.cls for of in tokens], outputs, processes, progress)

    def assign(
        self, features: Sequence[Tensor], outputs: Sequence[Tensor], processes: ProcessGroup, progress: float
    ) -> list[PrototypeTargets]:
        """Centred and sharpened distributions. Where `follow` ends the step, the centre moves to the mean output.

        It begins at the first batch's mean. From zero, as published, the targets of the first twenty steps or so would
        be nearly the same for all images, and the head's warm-up would learn just that.

        Args:
            features, outputs: of each micro-batch, class tokens [2b, D] and their cosines [2, b, K].
        """
        settings, centre = self.settings, self.head.centre
        temperature = settings.teacher_temperature(progress)
        with torch.autocast(centre.device.type, enabled=False):
            if progress == 0:
                centre = moved_centre(centre, outputs, 0.0, processes)
            cls = [((part.float() - centre) / temperature).softmax(-1) for part in outputs]
            self.next_centre = moved_centre(centre, outputs, settings.centre_momentum, processes)
        entropy, information = certainty(cls, processes.sum)
        frozen = progress < settings.freeze_last_layer
        return [PrototypeTargets(*of, entropy, information, frozen) for of in zip(features, cls, strict=True)]

    def follow(self, student: Method[PrototypeTargets], momentum: float) -> None:
        """Weights and centre."""
        super().follow(student, momentum)
        if self.next_centre is not None:
            self.head.centre.copy_(self.next_centre)

    def loss(self, tokens: Features, views: Views, targets: PrototypeTargets, pool: Pool) -> tuple[Tensor, Terms]:
        """In fp32; the terms are `loss`, and `entropy` and `information` of the targets. Nothing is masked in DINO."""
        cls = by_view(self.head(tokens.cls, targets.frozen), views.images)
        loss = self.fuse(cross_entropy_of_views)(cls, targets.cls, self.settings.student_temp)
        return loss, {"loss": loss.detach(), "entropy": targets.entropy, "information": targets.information}

    def collapse(self, images: int) -> dict[str, float]:
        """The teacher spreads every image over all prototypes alike, which is where centring ends."""
        uniform = math.log(self.settings.prototypes)
        return {"loss": uniform, "entropy": uniform, "information": 0.0}

    def collapse_warning(self, terms: dict[str, float], images: int) -> str | None:
        """Where every image has the same targets."""
        return no_information(terms)


def moved_centre(centre: Tensor, outputs: Sequence[Tensor], momentum: float, processes: ProcessGroup) -> Tensor:
    """momentum * centre + (1 - momentum) * mean output of the global batch (eq. 4); [K].

    An output that is not finite leaves it alone: unlike a bad gradient, it would stay in the centre for good.
    """
    sums = torch.stack([part.float().sum((0, 1)) for part in outputs]).sum(0)
    count = sums.new_full((1,), sum(part[..., 0].numel() for part in outputs))
    total = processes.sum(torch.cat([sums, count]))
    moved = centre.lerp(total[:-1] / total[-1], 1 - momentum)
    return torch.where(torch.isfinite(moved).all(), moved, centre)
