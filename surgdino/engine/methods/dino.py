"""DINO (Caron et al. 2021, arXiv 2104.14294): from any crop, tell which prototypes the teacher sees in another.

Symbols: b images of a micro-batch, 2 global and L local views, D the backbone's width, K prototypes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from surgdino.engine.methods.parts.encode import student_tokens, teacher_tokens
from surgdino.engine.methods.parts.pool import Pool
from surgdino.engine.methods.parts.prototypes import (
    PrototypeHead,
    certainty,
    check_temperatures,
    cross_entropy_of_views,
    teacher_temperature,
    words_of_collapse,
)
from surgdino.engine.methods.parts.views import Views, by_view
from surgdino.engine.parallel.across import Across
from surgdino.engine.teacher import Network


@dataclass(frozen=True)
class Settings:
    """The `method` section; configs/method/dino.yaml says what each key means."""

    name: str = "dino"
    student_temp: float = 0.1
    teacher_temp_start: float = 0.04
    teacher_temp: float = 0.07
    teacher_temp_warmup: float = 0.3
    centre_momentum: float = 0.9
    prototypes: int = 65536
    head_hidden: int = 2048
    head_out: int = 256
    freeze_last_layer: float = 0.01
    momentum: float = 0.996
    momentum_end: float = 1.0
    mask_probability: float = field(default=0.0, init=False)
    mask_ratio: tuple[float, float] = field(default=(0.1, 0.5), init=False)


@dataclass
class Outputs:
    """What the teacher says of a micro-batch's global views.

    Attributes:
        cls: [2, b, K], cosines with the prototypes.
        features: [2b, D], the backbone's class tokens, for the monitor.
    """

    cls: Tensor
    features: Tensor


@dataclass
class Targets:
    """What the student has to tell of a micro-batch.

    Attributes:
        cls: [2, b, K], distributions.
        entropy, information: of the whole batch's targets (see `prototypes.certainty`).
        frozen: the prototypes do not learn yet.
    """

    cls: Tensor
    entropy: Tensor
    information: Tensor
    frozen: bool


def build_head(settings: Settings, embed_dim: int) -> nn.Module:
    """A head with prototypes, and the centre of the teacher's outputs."""
    head = PrototypeHead(embed_dim, settings.head_hidden, settings.head_out, settings.prototypes)
    head.register_buffer("centre", torch.zeros(settings.prototypes))
    return head


def check_batch(settings: Settings, images: int) -> None:
    """Raise where the temperatures cannot be; a batch of any size will do."""
    check_temperatures(settings.student_temp, settings.teacher_temp_start, settings.teacher_temp)


@torch.no_grad()
def teacher_outputs(teacher: Network, views: Views, settings: Settings) -> Outputs:
    """The teacher's class tokens of both whole global views."""
    features = teacher_tokens(teacher, views)
    return Outputs(by_view(teacher.head(features.cls), views.images), features.cls)


@torch.no_grad()
def make_targets(
    outputs: list[Outputs], teacher: Network, settings: Settings, across: Across, progress: float
) -> list[Targets]:
    """Centred and sharpened distributions; then the centre moves towards the mean output of the global batch.

    It begins at the first batch's mean. From zero, as published, the targets of the first twenty steps or so would be
    nearly the same for all images, and the head's warm-up would learn just that.
    """
    temperature = teacher_temperature(
        progress, settings.teacher_temp_start, settings.teacher_temp, settings.teacher_temp_warmup
    )
    centre: Tensor = teacher.head.centre  # type: ignore[assignment]
    with torch.autocast(centre.device.type, enabled=False):
        if progress == 0:
            move_centre(centre, outputs, 0.0, across)
        cls = [((part.cls.float() - centre) / temperature).softmax(-1) for part in outputs]
        move_centre(centre, outputs, settings.centre_momentum, across)
        entropy, information = certainty(cls, across.sum)
    return [Targets(part, entropy, information, progress < settings.freeze_last_layer) for part in cls]


def move_centre(centre: Tensor, outputs: list[Outputs], momentum: float, across: Across) -> None:
    """centre <- momentum * centre + (1 - momentum) * mean output of the global batch (eq. 4), in place; [K].

    An output that is not finite leaves it alone: unlike a bad gradient, it would stay in the centre for good.
    """
    sums = torch.stack([part.cls.float().sum((0, 1)) for part in outputs]).sum(0)
    count = sums.new_tensor(sum(part.cls[..., 0].numel() for part in outputs))
    total = across.sum(torch.cat([sums, count[None]]))
    moved = centre.lerp(total[:-1] / total[-1], 1 - momentum)
    centre.copy_(torch.where(torch.isfinite(moved).all(), moved, centre))


def student_loss(
    student: Network, views: Views, targets: Targets, settings: Settings, pool: Pool
) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean cross-entropy of the student's views with the teacher's other view, in fp32.

    Returns:
        The loss, and without gradient `loss`, and `entropy` and `information` of the targets.
    """
    tokens = student_tokens(student, views)  # nothing is masked in DINO
    cls = by_view(student.head(tokens.cls, targets.frozen), views.images)
    loss = cross_entropy_of_views(cls, targets.cls, settings.student_temp)
    return loss, {"loss": loss.detach(), "entropy": targets.entropy, "information": targets.information}


def collapse_values(settings: Settings, images: int) -> dict[str, float]:
    """The terms where the teacher spreads every image over all prototypes alike, which is where centring ends."""
    uniform = math.log(settings.prototypes)
    return {"loss": uniform, "entropy": uniform, "information": 0.0}


def signs_of_collapse(terms: dict[str, float], settings: Settings, images: int) -> str | None:
    """A sentence where every image has the same targets."""
    return words_of_collapse(terms)
