"""SimDINO (Wu et al. 2025, arXiv 2502.10385): SimDINOv2 without masks and without its patch loss."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from surgdino.engine.methods import simdinov2
from surgdino.engine.methods.parts.pool import Pool
from surgdino.engine.methods.parts.views import Views
from surgdino.engine.teacher import Network


@dataclass(frozen=True)
class Settings(simdinov2.Settings):
    """The `method` section; configs/method/simdino.yaml says what each key means. What it leaves out is fixed here."""

    name: str = "simdino"
    momentum: float = 0.996
    patch_weight: float = field(default=0.0, init=False)
    mask_probability: float = field(default=0.0, init=False)
    mask_ratio: tuple[float, float] = field(default=(0.1, 0.5), init=False)


build_head = simdinov2.build_head
check_batch = simdinov2.check_batch
teacher_outputs = simdinov2.teacher_outputs
make_targets = simdinov2.make_targets
group_features = simdinov2.group_features
signs_of_collapse = simdinov2.signs_of_collapse


def student_loss(
    student: Network, views: Views, targets: simdinov2.Outputs, settings: Settings, pool: Pool
) -> tuple[Tensor, dict[str, Tensor]]:
    """-coeff * comp - expa of the class tokens (see `simdinov2.objective`), and its terms."""
    loss, terms = simdinov2.student_loss(student, views, targets, settings, pool)
    return loss, {name: value for name, value in terms.items() if name != "patch"}


def collapse_values(settings: Settings, images: int) -> dict[str, float]:
    """The terms where all images look the same."""
    values = simdinov2.collapse_values(settings, images)
    return {name: value for name, value in values.items() if name != "patch"}
