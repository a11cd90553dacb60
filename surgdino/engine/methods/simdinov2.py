"""SimDINOv2 (Wu et al. 2025, arXiv 2502.10385): agree across crops, fill the space, and predict the masked patches.

Symbols: b images of a micro-batch, 2 global and L local views, p the head's width, M masked patches; B images of the
global batch, over which the coding rate is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from surgdino.backbone.vit import Backbone, Features
from surgdino.engine.method import Method, Targets, Terms
from surgdino.engine.methods.parts.heads import ProjectionHead
from surgdino.engine.methods.parts.spread import coding_rate, gamma, highest_rate, is_lowest, lowest_rate
from surgdino.engine.methods.parts.views import Views, by_view, teacher_tokens
from surgdino.engine.methods.simdinov2_settings import Settings
from surgdino.engine.processes import Pool, ProcessGroup


@dataclass
class UnitTargets(Targets):
    """Of the unmasked global views; nothing in them depends on other images.

    Attributes:
        cls: [2, b, p], unit length.
        patches: [M, p], unit length, where the student's views are masked.
    """

    cls: Tensor
    patches: Tensor


class SimDINOv2(Method[UnitTargets]):
    """-coeff * comp - expa + patch_weight * patch."""

    settings: Settings
    head: ProjectionHead

    def __init__(self, settings: Settings, backbone: Backbone) -> None:
        super().__init__(settings, backbone)
        self.group_size = settings.group_size
        self.mask_probability, self.mask_ratio = settings.mask_probability, settings.mask_ratio

    def build_head(self, embed_dim: int) -> ProjectionHead:
        """One head for class and patch tokens."""
        return ProjectionHead(embed_dim, self.settings.head_hidden, self.settings.head_out)

    def targets(self, views: Sequence[Views], processes: ProcessGroup, progress: float) -> list[UnitTargets]:
        """The teacher's unit features as they are: no prototypes, so nothing to centre or to sharpen."""
        targets = []
        for micro in views:
            tokens = teacher_tokens(self.backbone, micro)
            cls, patches = self._project(tokens)
            targets.append(UnitTargets(tokens.cls, by_view(cls, micro.images), patches))
        return targets

    def group_features(self, cls: Tensor, views: Views, targets: UnitTargets) -> dict[str, Tensor]:
        """What the coding rate is taken of, [2, b, p]."""
        return {"expanded": _expanded(by_view(self.head(cls), views.images), targets.cls, self.settings)}

    def loss(self, tokens: Features, views: Views, targets: UnitTargets, pool: Pool) -> tuple[Tensor, Terms]:
        """Of the masked global views and the local views, see `objective`."""
        cls, patches = self._project(tokens)
        cls = by_view(cls, views.images)
        return objective(cls, targets.cls, patches, targets.patches, views.mask_weight, self.settings, pool)

    def collapse(self, images: int) -> dict[str, float]:
        """The terms where all images look the same; `expa` depends on the size of the group."""
        settings = self.settings
        lowest = lowest_rate(settings.head_out, settings.eps, settings.pooled_groups)
        expa, patch = _gamma(settings, images, settings.head_out) * lowest, -settings.mask_probability
        loss = settings.patch_weight * patch - settings.coeff - expa
        return {"comp": 1.0, "expa": expa, "patch": patch, "loss": loss}

    def collapse_warning(self, terms: dict[str, float], images: int) -> str | None:
        """Judged against what `expa` can be for this batch."""
        lowest, highest = self.collapse(images)["expa"], highest_expansion(self.settings, images)
        if terms["comp"] < 0.99 or not is_lowest(terms["expa"], lowest, highest):
            return None
        return (
            f"the features collapse: all images look the same (comp {terms['comp']:.4f}, expa {terms['expa']:.3f}; "
            f"{lowest:.3f} is collapse and {highest:.3f} the maximum); lower train.lr, or raise train.batch_size"
        )

    def _project(self, tokens: Features) -> tuple[Tensor, Tensor]:
        """Class tokens and the masked patch tokens through the head in one pass."""
        projected = self.head(torch.cat(tokens))
        return projected[: len(tokens.cls)], projected[len(tokens.cls) :]


def objective(
    student_cls: Tensor,
    teacher_cls: Tensor,
    student_patches: Tensor,
    teacher_patches: Tensor,
    mask_weight: Tensor,
    settings: Settings,
    pool: Pool | None = None,
) -> tuple[Tensor, Terms]:
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
    groups = pool.groups("expanded", _expanded(student_cls, teacher_cls, settings), settings.group_size)
    rates = coding_rate(groups, settings.eps, settings.pooled_groups)
    return _gamma(settings, *groups.shape[2:]) * rates.mean()


def highest_expansion(settings: Settings, images: int) -> float:
    """The largest `expa` that a batch of `images` can have."""
    group, width = settings.group_size or images, settings.head_out
    return _gamma(settings, images, width) * highest_rate(group, width, settings.eps, settings.pooled_groups)


def _expanded(student_cls: Tensor, teacher_cls: Tensor, settings: Settings) -> Tensor:
    return student_cls if settings.expa_type == 0 else (student_cls + teacher_cls) / 2


def _gamma(settings: Settings, images: int, width: int) -> float:
    return gamma(settings.gamma, settings.group_size or images, width, settings.eps, settings.pooled_groups)
