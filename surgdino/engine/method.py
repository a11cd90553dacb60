"""The interface of a method: a backbone, the heads on it, and the loss that is computed from them.

Symbols: B images of the global batch, in W processes of K micro-batches of b = B / (W K) images; D the backbone's
width.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar, get_type_hints

import torch
from torch import Tensor, nn

from surgdino import discovery
from surgdino.backbone.vit import Backbone, Features
from surgdino.backbone.weights import WeightsReport
from surgdino.config import typed
from surgdino.crops.settings import CropSettings
from surgdino.engine.anchor import gram_loss
from surgdino.engine.guide import Guides
from surgdino.engine.methods.parts.fused import Fuse, fused, plain
from surgdino.engine.methods.parts.views import Views, global_class_tokens, student_tokens
from surgdino.engine.processes import Pool, ProcessGroup, local
from surgdino.engine.settings import MethodSettings
from surgdino.errors import SurgdinoError

Terms = dict[str, Tensor]


@dataclass
class Targets:
    """The teacher's targets for the student on one micro-batch. A method adds its own fields.

    Attributes:
        features: [2b, D], class tokens of the teacher's backbone, for the monitor.
    """

    features: Tensor


T = TypeVar("T", bound=Targets)


class Method(nn.Module, Generic[T]):
    """A network and its objective. A run has two: the student, and its moving average, the teacher.

    A new method is one YAML, and one file with one subclass, which has `build_head`, `targets` and `loss` and annotates
    `settings` with a frozen dataclass of its section. All else has a default.

    Attributes:
        settings: the `method` section.
        group_size: how many consecutive images of the global batch one term couples; 1: none; None: all B.
        least_group: the fewest images in a group.
        dense: whether `loss` reads all patches of the global views, not only those that are masked.
        mask_probability, mask_ratio: share of the student's global views that are masked, and of their patches.
        backbone, head: the parts; the teacher's buffers are its own (running centres, for example).
        guides: what is learnt beside the objective; the student's alone.
        gram: weight of the loss on patch relations where views have an anchor; see `surgdino.engine.anchor`.
    """

    settings: MethodSettings
    group_size: int | None = 1
    least_group: int = 1
    dense: bool = False
    mask_probability: float = 0.0
    mask_ratio: tuple[float, float] = (0.1, 0.5)
    backbone: Backbone
    head: nn.Module
    guides: Guides | None
    gram: float = 0.0

    def __init__(self, settings: MethodSettings, backbone: Backbone) -> None:
        super().__init__()
        self.settings = settings
        self.backbone = backbone
        self.head = self.build_head(backbone.embed_dim)
        self.guides = None

    def build_head(self, embed_dim: int) -> nn.Module:
        """What maps the backbone's tokens [..., embed_dim] to what the loss compares."""
        raise NotImplementedError

    def targets(self, views: Sequence[Views], processes: ProcessGroup, progress: float) -> list[T]:
        """As the teacher: the targets of a step, without gradient.

        Whatever looks at the whole batch (Sinkhorn-Knopp, running centres) goes through `processes`.

        Args:
            views: this process's K micro-batches.
            progress: step / steps, in [0, 1].
        """
        raise NotImplementedError

    def loss(self, tokens: Features, views: Views, targets: T, pool: Pool) -> tuple[Tensor, Terms]:
        """As the student: the loss of one micro-batch, and its terms without gradient, `loss` among them.

        Means over images are means over the b images here. A term over groups is computed over
        `pool.groups(name, own, size)`, which has all B images, and enters the loss times `pool.share`, the terms
        without.

        Args:
            tokens: what `encode` gives without an anchor.
        """
        raise NotImplementedError

    def encode(self, views: Views) -> Features:
        """As the student: `cls` [(2 + L) b, D] with the global views first; `patches` of these, [2b * N, D] where
        `dense` or where there is an anchor, otherwise those that are masked, [M, D]."""
        return student_tokens(self.backbone, views, dense=self.dense or views.anchor is not None)

    @classmethod
    def taught_by(cls, settings: MethodSettings, crops: Sequence[CropSettings]) -> list[WeightsReport]:
        """The frozen weights that it learns from beside the student's own, read and checked before anything else.

        What these have seen, the student will have seen.
        """
        return []

    @property
    def identity(self) -> Mapping[str, Any]:
        """What a resumed run must have the same in the place of settings that name files."""
        return {}

    def group_features(self, cls: Tensor, views: Views, targets: T) -> dict[str, Tensor]:
        """As the student: name -> [2, b, ...], what `loss` gives to `pool.groups` under these names.

        Called without gradient, and only where something spans several micro-batches.

        Args:
            cls: [2b, D], class tokens of the global views as `encode` gives them.
        """
        return {}

    def check_batch(self, images: int) -> None:
        """Raise where a global batch of so many images does not divide into groups."""
        group = self.group_size or images
        if images % group or group < self.least_group:
            least = f", at least {self.least_group}" if self.least_group > 1 else ""
            raise SurgdinoError(
                "the batch does not divide into groups",
                place="method.group_size",
                expected=f"a divisor of train.batch_size={images}{least}",
                found=group,
                fix="change one of the two",
            )

    def collapse(self, images: int) -> dict[str, float]:
        """The terms of a run in which all images look the same, for a global batch of so many images."""
        return {}

    def collapse_warning(self, terms: dict[str, float], images: int) -> str | None:
        """A sentence where the terms are near those of `collapse`, else None."""
        return None

    # The rest is the same in every method.

    def forward(self, views: Views, targets: T, pool: Pool) -> tuple[Tensor, Terms]:
        """`loss`, and those of anchor and guides; DDP and FSDP2 exchange gradients and weights around it alone."""
        tokens = self.encode(views)
        added, figures = [], Terms()
        if views.anchor is not None:
            relations = gram_loss(tokens.patches.view_as(views.anchor), views.anchor)
            tokens = tokens if self.dense else tokens._replace(patches=tokens.patches[views.masked])
            added, figures = [self.gram * relations], {"gram": relations.detach()}
        if self.guides is not None:
            guided, of_guides = self.guides(tokens.cls[: len(views.global_crops)], views, pool)
            tokens = tokens._replace(cls=self.guides.watched(tokens.cls, views))
            pool = self.guides.spreads(views, pool)
            added, figures = [*added, guided], figures | of_guides
        loss, terms = self.loss(tokens, views, targets, pool)
        return sum(added, loss), terms | figures

    def class_tokens(self, images: Tensor) -> Tensor:
        """Of normalised images [n, 3, S, S]; [n, D]."""
        return self.backbone(images).cls

    def ahead(self, views: Views, targets: T) -> dict[str, Tensor]:
        """What `forward` completes, by name: a pass over the global crops with the same paths dropped."""
        cls = global_class_tokens(self.backbone, views)
        guides = {} if self.guides is None else self.guides.ahead(cls, views)
        return {**self.group_features(cls, views, targets), **guides}

    @property
    def fuse(self) -> Fuse:
        """What makes a function of many small operators one of few kernels, where the blocks are compiled."""
        return fused if self.backbone.compiles else plain

    def make_teacher(self) -> Self:
        """A copy without guides that takes no gradient and never drops a path."""
        teacher = copy.deepcopy(self).requires_grad_(False).eval()
        teacher.guides = None
        return teacher

    @torch.no_grad()
    def follow(self, student: Method[T], momentum: float) -> None:
        """Every parameter <- momentum * itself + (1 - momentum) * the student's. Buffers stay as they are."""
        ours, theirs = (local([*each.backbone.parameters(), *each.head.parameters()]) for each in (self, student))
        torch._foreach_lerp_(ours, theirs, 1.0 - momentum)


def open_method(section: Mapping[str, Any]) -> tuple[type[Method], MethodSettings]:
    """The class that a `method` section names, and its settings."""
    name = str(section.get("name"))
    module = discovery.load("surgdino.engine.methods", name, "method")
    kind = discovery.defined(module, Method)
    return kind, typed(get_type_hints(kind)["settings"], section, "method")
