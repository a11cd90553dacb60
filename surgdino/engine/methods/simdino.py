"""SimDINO (Wu et al. 2025, arXiv 2502.10385): SimDINOv2 without masks and without its patch loss."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from surgdino.backbone.vit import Features
from surgdino.config import Range
from surgdino.engine.method import Terms
from surgdino.engine.methods import simdinov2
from surgdino.engine.methods.parts.views import Views
from surgdino.engine.processes import Pool


@dataclass(frozen=True)
class Settings(simdinov2.Settings):
    """The `method` section; configs/method/simdino.yaml explains the keys. What it leaves out is fixed here."""

    patch_weight: float = field(default=0.0, init=False)
    mask_probability: float = field(default=0.0, init=False)
    mask_ratio: Range = field(default=(0.1, 0.5), init=False)


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
