"""DINOv2 (Oquab et al. 2023, arXiv 2304.07193): DINO on class tokens, iBOT (arXiv 2111.07832) on masked patches, KoLeo.

Symbols: b images of a micro-batch, B of the global batch, 2 global and L local views, D the backbone's width, K
prototypes, M masked patches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from surgdino.engine.methods.parts.encode import global_class_tokens, student_tokens, teacher_tokens
from surgdino.engine.methods.parts.koleo import WORST, koleo
from surgdino.engine.methods.parts.pool import Pool
from surgdino.engine.methods.parts.prototypes import (
    PrototypeHead,
    certainty,
    check_temperatures,
    cross_entropy,
    cross_entropy_of_views,
    teacher_temperature,
    words_of_collapse,
)
from surgdino.engine.methods.parts.sinkhorn import sinkhorn
from surgdino.engine.methods.parts.views import Views, by_view
from surgdino.engine.parallel.across import Across
from surgdino.engine.teacher import Network
from surgdino.errors import SurgdinoError


@dataclass(frozen=True)
class Settings:
    """The `method` section; configs/method/dinov2.yaml says what each key means."""

    name: str = "dinov2"
    student_temp: float = 0.1
    teacher_temp_start: float = 0.04
    teacher_temp: float = 0.07
    teacher_temp_warmup: float = 0.3
    sinkhorn_iterations: int = 3
    patch_weight: float = 1.0
    koleo_weight: float = 0.1
    group_size: int | None = None
    prototypes: int = 65536
    head_hidden: int = 2048
    head_out: int = 256
    freeze_last_layer: float = 0.01
    momentum: float = 0.992
    momentum_end: float = 1.0
    mask_probability: float = 0.5
    mask_ratio: tuple[float, float] = (0.1, 0.5)


@dataclass
class Outputs:
    """What the teacher says of a micro-batch's whole global views.

    Attributes:
        cls: [2, b, K], cosines of class tokens with the class prototypes.
        patches: [M, K], of patch tokens with the patch prototypes, where the student's views are masked.
        features: [2b, D], the backbone's class tokens, for the monitor.
    """

    cls: Tensor
    patches: Tensor
    features: Tensor


@dataclass
class Targets:
    """What the student has to tell of a micro-batch.

    Attributes:
        cls, patches: [2, b, K] and [M, K], distributions.
        entropy, information: of the whole batch's class targets (see `prototypes.certainty`).
        frozen: the prototypes do not learn yet.
    """

    cls: Tensor
    patches: Tensor
    entropy: Tensor
    information: Tensor
    frozen: bool


class SeparateHeads(nn.Module):
    """One head with prototypes for class tokens, another for patch tokens."""

    def __init__(self, settings: Settings, embed_dim: int) -> None:
        super().__init__()
        shape = (embed_dim, settings.head_hidden, settings.head_out, settings.prototypes)
        self.cls, self.patch = PrototypeHead(*shape), PrototypeHead(*shape)

    def forward(self, cls: Tensor, patches: Tensor, frozen: bool = False) -> tuple[Tensor, Tensor]:
        """[n, D] and [M, D] -> [n, K] and [M, K]."""
        return self.cls(cls, frozen), self.patch(patches, frozen)


def build_head(settings: Settings, embed_dim: int) -> nn.Module:
    """Separate heads for class and patch tokens."""
    return SeparateHeads(settings, embed_dim)


def check_batch(settings: Settings, images: int) -> None:
    """Raise where `images` images do not divide into groups of at least two, or the temperatures cannot be."""
    check_temperatures(settings.student_temp, settings.teacher_temp_start, settings.teacher_temp)
    group = settings.group_size or images
    if images % group or group < 2:
        raise SurgdinoError(
            "the batch does not divide into groups in which images have neighbours",
            place="method.group_size",
            expected=f"a divisor of train.batch_size={images}, at least 2",
            found=group,
            fix="change one of the two",
        )


@torch.no_grad()
def teacher_outputs(teacher: Network, views: Views, settings: Settings) -> Outputs:
    """The teacher's class tokens of both global views, and its patch tokens where the student's are masked."""
    features = teacher_tokens(teacher, views)
    cls, patches = teacher.head(features.cls, features.patches)
    return Outputs(by_view(cls, views.images), patches, features.cls)


@torch.no_grad()
def make_targets(
    outputs: list[Outputs], teacher: Network, settings: Settings, across: Across, progress: float
) -> list[Targets]:
    """Sinkhorn-Knopp over all class tokens of the global batch, and over all its masked patches."""
    temperature = teacher_temperature(
        progress, settings.teacher_temp_start, settings.teacher_temp, settings.teacher_temp_warmup
    )
    iterations = settings.sinkhorn_iterations
    rows = sinkhorn([part.cls.flatten(0, 1) for part in outputs], temperature, iterations, across.sum)
    patches = sinkhorn([part.patches for part in outputs], temperature, iterations, across.sum)
    cls = [row.view(part.cls.shape) for row, part in zip(rows, outputs, strict=True)]
    entropy, information = certainty(cls, across.sum)
    frozen = progress < settings.freeze_last_layer
    return [Targets(*pair, entropy, information, frozen) for pair in zip(cls, patches, strict=True)]


def group_features(student: Network, views: Views, targets: Targets, settings: Settings) -> dict[str, Tensor]:
    """What KoLeo spreads out: the backbone's class tokens of the masked global views, [2, b, D]."""
    return {"cls": by_view(global_class_tokens(student, views), views.images)}


def student_loss(
    student: Network, views: Views, targets: Targets, settings: Settings, pool: Pool
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of the student's masked global views and local views, and its terms (see `objective`)."""
    tokens = student_tokens(student, views)
    cls, patches = student.head(tokens.cls, tokens.patches, targets.frozen)
    spread = by_view(tokens.cls[: len(views.global_crops)], views.images)
    return objective(by_view(cls, views.images), patches, spread, targets, views.mask_weight, settings, pool)


def objective(
    student_cls: Tensor,
    student_patches: Tensor,
    spread: Tensor,
    targets: Targets,
    mask_weight: Tensor,
    settings: Settings,
    pool: Pool | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """cls + patch_weight * patch + koleo_weight * koleo, in fp32.

    Args:
        student_cls: [2 + L, b, K], cosines, global views first.
        student_patches: [M, K], cosines.
        spread: [2, b, D], the backbone's class tokens of the global views.
        targets: the teacher's.
        mask_weight: [M], one over the masked patches of the same view.
        pool: the rest of the batch; None where these are all B images.

    Returns:
        The loss, its KoLeo times `pool.share`; and without gradient `loss`, `cls` (cross-entropy, mean over pairs of
        views), `patch` (cross-entropy, mean over the 2b views, unmasked ones counting 0), `koleo` (mean over groups, in
        sum over the two global views, as published), and `entropy` and `information` of the class targets.
    """
    pool = pool or Pool()
    cls = cross_entropy_of_views(student_cls, targets.cls, settings.student_temp)
    with torch.autocast(student_cls.device.type, enabled=False):
        patch = cross_entropy(student_patches, targets.patches, settings.student_temp)
        patch = (patch * mask_weight).sum() / targets.cls[..., 0].numel()
        full = pool.complete("cls", spread)
        apart = koleo(full.unflatten(1, (-1, settings.group_size or full.shape[1]))).sum(0).mean()
        alone = cls + settings.patch_weight * patch
    loss = alone + settings.koleo_weight * apart
    terms = {"loss": loss, "cls": cls, "patch": patch, "koleo": apart}
    terms |= {"entropy": targets.entropy, "information": targets.information}
    return alone + pool.share * settings.koleo_weight * apart, {name: term.detach() for name, term in terms.items()}


def collapse_values(settings: Settings, images: int) -> dict[str, float]:
    """The terms where all tokens look the same: Sinkhorn-Knopp spreads them over all prototypes alike."""
    uniform = math.log(settings.prototypes)
    patch, apart = settings.mask_probability * uniform, 2 * WORST
    loss = uniform + settings.patch_weight * patch + settings.koleo_weight * apart
    return {"loss": loss, "cls": uniform, "patch": patch, "koleo": apart, "entropy": uniform, "information": 0.0}


def signs_of_collapse(terms: dict[str, float], settings: Settings, images: int) -> str | None:
    """A sentence where every image has the same targets."""
    return words_of_collapse(terms)
