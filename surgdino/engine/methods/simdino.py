"""SimDINO (Wu et al. 2025, arXiv 2502.10385): SimDINOv2 without masks and without its patch loss."""

from __future__ import annotations

from torch import Tensor

from surgdino.backbone.vit import Features
from surgdino.engine.method import Terms
from surgdino.engine.methods import simdinov2
from surgdino.engine.methods.parts.views import Views
from surgdino.engine.methods.simdino_settings import Settings
from surgdino.engine.processes import Pool


class SimDINO(simdinov2.SimDINOv2):
    """-coeff * comp - expa of the class tokens."""

    settings: Settings

    def loss(self, tokens: Features, views: Views, targets: simdinov2.UnitTargets, pool: Pool) -> tuple[Tensor, Terms]:
        """SimDINOv2's, whose patch term is 0 and not logged."""
        loss, terms = super().loss(tokens, views, targets, pool)
        return loss, {name: value for name, value in terms.items() if name != "patch"}

    def collapse(self, images: int) -> dict[str, float]:
        """SimDINOv2's without the patch term."""
        return {name: value for name, value in super().collapse(images).items() if name != "patch"}
