"""Distillation: frozen backbones, larger or adapted, teach a smaller one by cosines of class tokens and patches.

Feature regression through one adaptor a teacher is RADIO's (Ranzinger et al. 2024, arXiv 2312.06709); the coding rate
is SimDINO's (Wu et al. 2025, arXiv 2502.10385). Symbols: b images of a micro-batch, 2 global and L local views, N
patches of a global view, D and D_T the widths of student and teacher.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from surgdino.backbone.vit import Backbone, Features
from surgdino.backbone.weights import WeightsReport
from surgdino.crops.settings import CropSettings
from surgdino.engine.method import Method, MethodSettings, Targets, Terms
from surgdino.engine.methods.distill_settings import Settings
from surgdino.engine.methods.parts.spread import coding_rate, gamma, highest_rate, is_lowest, lowest_rate
from surgdino.engine.methods.parts.teachers import Adaptor, check_size, open_teachers
from surgdino.engine.methods.parts.views import GLOBAL_VIEWS, Views, by_view
from surgdino.engine.processes import Pool, ProcessGroup


@dataclass
class TaughtTokens(Targets):
    """What the teachers say of the whole global views; `features` are the student's, once it has seen them.

    Attributes:
        tokens: a teacher each, centred: `cls` [2b, D_T], `patches` [2bN, D_T].
        means: a teacher each, [2, D_T], what was taken off.
    """

    tokens: list[Features]
    means: list[Tensor]


class Distill(Method[TaughtTokens]):
    """-comp - local_weight * local - patch_weight * patches - expa_weight * expa; means over teachers.

    The teachers see the student's own global crops, colours included, so that the targets are of exactly what it sees.
    """

    settings: Settings
    head: nn.ModuleList
    dense = True

    def __init__(self, settings: Settings, backbone: Backbone) -> None:
        self.teachers = tuple(open_teachers(settings.teachers, settings.teacher_size))  # no submodules: never saved
        super().__init__(settings, backbone)
        self.group_size = settings.group_size
        self.mask_probability, self.mask_ratio = settings.mask_probability, settings.mask_ratio

    @classmethod
    def taught_by(cls, settings: MethodSettings, crops: Sequence[CropSettings]) -> list[WeightsReport]:
        """The teachers' weights."""
        assert isinstance(settings, Settings)
        teachers = open_teachers(settings.teachers, settings.teacher_size)
        for teacher in teachers:
            for each in crops:
                check_size(teacher, each.global_size)
        return [teacher.report for teacher in teachers]

    @property
    def identity(self) -> Mapping[str, Any]:
        """The teachers by their hashes."""
        return {"teachers": [f"sha256:{teacher.report.sha256}" for teacher in self.teachers]}

    @property
    def adaptors(self) -> list[Adaptor]:
        """In the order of the teachers."""
        return list(self.head)  # type: ignore[arg-type]

    def build_head(self, embed_dim: int) -> nn.ModuleList:
        """An adaptor a teacher."""
        hidden = self.settings.adaptor_hidden
        return nn.ModuleList(Adaptor(embed_dim, teacher.backbone.embed_dim, hidden) for teacher in self.teachers)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Distill:
        """Where the network goes, its teachers go too."""
        for teacher in self.teachers:
            teacher.backbone._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def targets(self, views: Sequence[Views], processes: ProcessGroup, progress: float) -> list[TaughtTokens]:
        """The teachers' tokens, centred by the means of the run's first batch, which this measures."""
        own, patch = self.backbone.settings, self.backbone.patch_size
        found: list[list[Features]] = []  # by teacher and micro-batch
        for teacher, adaptor in zip(self.teachers, self.adaptors, strict=True):
            grids = [(micro.global_crops.shape[-2] // patch, micro.global_crops.shape[-1] // patch) for micro in views]
            tokens = [teacher.tokens(v.global_crops, own, grid) for v, grid in zip(views, grids, strict=True)]
            if progress == 0:
                adaptor.measure(tokens, processes)
            centred = [(of.cls - adaptor.means[0], of.patches - adaptor.means[1]) for of in tokens]
            found.append([Features(cls, patches.flatten(0, 1)) for cls, patches in centred])
        means = [adaptor.means for adaptor in self.adaptors]
        return [TaughtTokens(of[0].cls, list(of), means) for of in zip(*found, strict=True)]

    def group_features(self, cls: Tensor, views: Views, targets: TaughtTokens) -> dict[str, Tensor]:
        """What the coding rate is taken of, [2, b, D]."""
        return {"expanded": _unit(cls, views)}

    def loss(self, tokens: Features, views: Views, targets: TaughtTokens, pool: Pool) -> tuple[Tensor, Terms]:
        """In fp32; `comp`, `local` and `patches` are mean cosines, `expa` is gamma times the coding rate.

        `comp` and `patches` compare what student and teacher see in the same crop; `local` a local crop with both
        global ones of the image, 0 where there are none.
        """
        settings, whole = self.settings, GLOBAL_VIEWS * views.images
        targets.features = tokens.cls[:whole].detach()
        mapped = [adaptor(tokens, means) for adaptor, means in zip(self.adaptors, targets.means, strict=True)]
        with torch.autocast(tokens.cls.device.type, enabled=False):
            pairs = list(zip(mapped, targets.tokens, strict=True))
            comp = _mean(F.cosine_similarity(own.cls[:whole], of.cls, dim=-1).mean() for own, of in pairs)
            patches = _mean(F.cosine_similarity(own.patches, of.patches, dim=-1).mean() for own, of in pairs)
            local = torch.zeros_like(comp)
            if len(views.local_crops):
                local = _mean(_locals(own.cls[whole:], of.cls, views.images) for own, of in pairs)
            groups = pool.groups("expanded", _unit(tokens.cls[:whole], views), settings.group_size)
            expa = self._gamma(groups.shape[2]) * coding_rate(groups, settings.eps).mean()
            alone = -comp - settings.local_weight * local - settings.patch_weight * patches
        terms = {"loss": alone - settings.expa_weight * expa, "comp": comp, "expa": expa}
        terms |= {"local": local, "patches": patches}
        return alone - pool.share * settings.expa_weight * expa, {name: term.detach() for name, term in terms.items()}

    def collapse(self, images: int) -> dict[str, float]:
        """Where all images look the same to the student, whose cosines with centred targets are then 0 in the mean."""
        expa = self._gamma(self.group_size or images) * lowest_rate(self.backbone.embed_dim, self.settings.eps)
        cosines = {"comp": 0.0, "local": 0.0, "patches": 0.0}
        return {**cosines, "expa": expa, "loss": -self.settings.expa_weight * expa}

    def collapse_warning(self, terms: dict[str, float], images: int) -> str | None:
        """Judged against what `expa` can be for this batch."""
        group, width = self.group_size or images, self.backbone.embed_dim
        lowest = self.collapse(images)["expa"]
        highest = self._gamma(group) * highest_rate(group, width, self.settings.eps)
        if terms["comp"] > 0.05 or not is_lowest(terms["expa"], lowest, highest):
            return None
        return (
            f"the features collapse: all images look the same to the student (comp {terms['comp']:.4f}, expa "
            f"{terms['expa']:.3f}; {lowest:.3f} is collapse and {highest:.3f} the maximum); lower train.lr"
        )

    def _gamma(self, images: int) -> float:
        return gamma("balanced", images, self.backbone.embed_dim, self.settings.eps)


def _unit(cls: Tensor, views: Views) -> Tensor:
    return F.normalize(by_view(cls.float(), views.images), dim=-1)


def _locals(own: Tensor, of: Tensor, images: int) -> Tensor:
    """Mean cosine of local class tokens [L b, D_T] with those of both global views [2b, D_T]."""
    local, whole = (F.normalize(by_view(each, images), dim=-1) for each in (own, of))
    return torch.einsum("lbd,gbd->", local, whole) / (len(local) * len(whole) * images)


def _mean(values: Any) -> Tensor:
    return torch.stack(list(values)).mean()
