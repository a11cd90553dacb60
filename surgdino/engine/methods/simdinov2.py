"""SimDINOv2 (Wu et al. 2025, arXiv 2502.10385): agree across crops, fill the space, and predict the masked patches.

Symbols: b images of a micro-batch, 2 global and L local views, p the head's width, M masked patches; B images of the
global batch, over which the coding rate is taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from surgdino.backbone.vit import Features
from surgdino.engine.methods.parts.coding_rate import Gamma, coding_rate, gamma, highest_rate, lowest_rate
from surgdino.engine.methods.parts.encode import global_class_tokens, student_tokens, teacher_tokens
from surgdino.engine.methods.parts.head import ProjectionHead
from surgdino.engine.methods.parts.pool import Pool
from surgdino.engine.methods.parts.views import Views, by_view
from surgdino.engine.parallel.across import Across
from surgdino.engine.teacher import Network
from surgdino.errors import SurgdinoError


@dataclass(frozen=True)
class Settings:
    """The `method` section; configs/method/simdinov2.yaml says what each key means."""

    name: str = "simdinov2"
    expa_type: Literal[0, 1] = 1
    eps: float = 0.05
    gamma: Gamma = "balanced"
    coeff: float = 1.0
    group_size: int | None = None
    pooled_groups: int = 1
    patch_weight: float = 1.0
    head_hidden: int = 2048
    head_out: int = 256
    momentum: float = 0.95
    momentum_end: float = 1.0
    mask_probability: float = 0.5
    mask_ratio: tuple[float, float] = (0.1, 0.5)


@dataclass
class Outputs:
    """What the teacher says of the unmasked global views; nothing in it depends on other images.

    Attributes:
        cls: [2, b, p], unit length.
        patches: [M, p], unit length, where the student's views are masked.
        features: [2b, D], the backbone's class tokens, for the monitor.
    """

    cls: Tensor
    patches: Tensor
    features: Tensor


def build_head(settings: Settings, embed_dim: int) -> nn.Module:
    """One head for class and patch tokens."""
    return ProjectionHead(embed_dim, settings.head_hidden, settings.head_out)


def check_batch(settings: Settings, images: int) -> None:
    """Raise where `images` images do not divide into groups."""
    group = settings.group_size or images
    if images % group:
        raise SurgdinoError(
            "the batch does not divide into groups",
            place="method.group_size",
            expected=f"a divisor of train.batch_size={images}",
            found=group,
            fix="change one of the two",
        )


@torch.no_grad()
def teacher_outputs(teacher: Network, views: Views, settings: Settings) -> Outputs:
    """The teacher's class tokens of both global views, and its patch tokens where the student's are masked."""
    features = teacher_tokens(teacher, views)
    cls, patches = _project(teacher.head, features)
    return Outputs(by_view(cls, views.images), patches, features.cls)


def make_targets(
    outputs: list[Outputs], teacher: Network, settings: Settings, across: Across, progress: float
) -> list[Outputs]:
    """The outputs as they are: no prototypes, so nothing to centre or to sharpen."""
    return outputs


def group_features(student: Network, views: Views, targets: Outputs, settings: Settings) -> dict[str, Tensor]:
    """What the coding rate is taken of, [2, b, p]."""
    cls = student.head(global_class_tokens(student, views))
    return {"expanded": _expanded(by_view(cls, views.images), targets.cls, settings)}


def student_loss(
    student: Network, views: Views, targets: Outputs, settings: Settings, pool: Pool
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of the student's masked global views and local views, and its terms (see `objective`)."""
    cls, patches = _project(student.head, student_tokens(student, views))
    cls = by_view(cls, views.images)
    return objective(cls, targets.cls, patches, targets.patches, views.mask_weight, settings, pool)


def objective(
    student_cls: Tensor,
    teacher_cls: Tensor,
    student_patches: Tensor,
    teacher_patches: Tensor,
    mask_weight: Tensor,
    settings: Settings,
    pool: Pool | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """-coeff * comp - expa + patch_weight * patch, in fp32.

    Args:
        student_cls: [2 + L, b, p], global views first.
        teacher_cls: [2, b, p].
        student_patches, teacher_patches: [M, p].
        mask_weight: [M], one over the masked patches of the same view.
        pool: the rest of the batch; None where these are all B images.

    All features have unit length. The B images form groups of `group_size` consecutive ones; nothing else in the layout
    of the batch (processes, accumulation) enters.

    Returns:
        The loss, its coding rate times `pool.share`; and without gradient `loss`, `comp` (mean cosine, larger is
        better), `expa` (gamma times the coding rate, larger is better) and `patch` (minus the mean cosine over the 2b
        views, unmasked ones counting 0), where the rate counts once.
    """
    pool = pool or Pool()
    with torch.autocast(student_cls.device.type, enabled=False):
        comp = agreement(student_cls, teacher_cls)
        expa = expansion(student_cls[: len(teacher_cls)], teacher_cls, settings, pool)
        cosines = F.cosine_similarity(student_patches, teacher_patches, dim=-1)
        patch = -(cosines * mask_weight).sum() / teacher_cls[..., 0].numel()
        alone = settings.patch_weight * patch - settings.coeff * comp
    terms = {"loss": alone - expa, "comp": comp, "expa": expa, "patch": patch}
    return alone - pool.share * expa, {name: term.detach() for name, term in terms.items()}


def agreement(student_cls: Tensor, teacher_cls: Tensor) -> Tensor:
    """`comp`: mean cosine over teacher view j and student view i, i != j; [V, B, p] and [2, B, p] -> scalar."""
    views, targets = len(student_cls), len(teacher_cls)
    cosines = torch.einsum("jbp,ibp->ji", teacher_cls, student_cls) / student_cls.shape[1]
    others = ~torch.eye(targets, views, dtype=torch.bool, device=cosines.device)
    return (cosines * others).sum() / (targets * views - targets)


def expansion(student_cls: Tensor, teacher_cls: Tensor, settings: Settings, pool: Pool) -> Tensor:
    """`expa`: gamma times the coding rate of the global views, mean over views and groups; [2, b, p] -> scalar."""
    features = pool.complete("expanded", _expanded(student_cls, teacher_cls, settings))
    images, width = features.shape[1:]
    group = settings.group_size or images
    rates = coding_rate(features.unflatten(1, (-1, group)), settings.eps, settings.pooled_groups)
    return _gamma(settings, images, width) * rates.mean()


def _expanded(student_cls: Tensor, teacher_cls: Tensor, settings: Settings) -> Tensor:
    return student_cls if settings.expa_type == 0 else (student_cls + teacher_cls) / 2


def collapse_values(settings: Settings, images: int) -> dict[str, float]:
    """The terms where all images look the same; `expa` depends on the size of the group."""
    lowest = lowest_rate(settings.head_out, settings.eps, settings.pooled_groups)
    expa, patch = _gamma(settings, images, settings.head_out) * lowest, -settings.mask_probability
    loss = settings.patch_weight * patch - settings.coeff - expa
    return {"comp": 1.0, "expa": expa, "patch": patch, "loss": loss}


def highest_expansion(settings: Settings, images: int) -> float:
    """The largest `expa` that a batch of `images` can have."""
    group, width = settings.group_size or images, settings.head_out
    return _gamma(settings, images, width) * highest_rate(group, width, settings.eps, settings.pooled_groups)


def signs_of_collapse(terms: dict[str, float], settings: Settings, images: int) -> str | None:
    """A sentence where every image is about to look the same, judged against what `expa` can be for this batch."""
    lowest, highest = collapse_values(settings, images)["expa"], highest_expansion(settings, images)
    if terms["comp"] < 0.99 or terms["expa"] > lowest + 0.05 * (highest - lowest):
        return None
    return (
        f"the features collapse: all images look the same (comp {terms['comp']:.4f}, expa {terms['expa']:.3f} where "
        f"{lowest:.3f} is collapse and {highest:.3f} the most); lower train.lr, or raise train.batch_size"
    )


def _gamma(settings: Settings, images: int, width: int) -> float:
    return gamma(settings.gamma, settings.group_size or images, width, settings.eps, settings.pooled_groups)


def _project(head: nn.Module, tokens: Features) -> tuple[Tensor, Tensor]:
    """Class tokens and the masked patch tokens through the head in one pass."""
    projected = head(torch.cat(tokens))
    return projected[: len(tokens.cls)], projected[len(tokens.cls) :]
