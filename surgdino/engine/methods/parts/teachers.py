"""Frozen backbones that a student learns from, and the maps of its tokens into their spaces.

Symbols: B images, N patches of the student, M of the teacher, D and D_T the widths of student and teacher.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from surgdino.backbone.preprocess import normalize
from surgdino.backbone.settings import ModelSettings
from surgdino.backbone.vit import Backbone, Features
from surgdino.backbone.weights import WeightsReport, open_weights
from surgdino.engine.methods.parts.heads import mlp
from surgdino.engine.methods.parts.views import on_grid
from surgdino.engine.processes import ProcessGroup
from surgdino.errors import SurgdinoError


@dataclass(frozen=True)
class Teacher:
    """A backbone that never learns. A copy of it is itself, so a student and its average share one.

    Attributes:
        report: where the weights are from, and what they have seen.
        size: side in pixels at which it sees a crop; None: as it is.
    """

    backbone: Backbone
    report: WeightsReport
    size: int | None

    def __deepcopy__(self, memo: dict[int, object]) -> Teacher:
        return self

    @torch.no_grad()
    def tokens(self, crops: Tensor, student: ModelSettings, grid: tuple[int, int]) -> Features:
        """`cls` [B, D_T] and `patches` [B, N, D_T], fp32, on the student's grid.

        Args:
            crops: float [B, 3, S, S] as the student sees them.
            student: whose mean and standard deviation they were normalised with.
            grid: rows and columns of the student's patches.
        """
        own = self.backbone.settings
        if (own.mean, own.std) != (student.mean, student.std):
            # x s + m are pixels in the 0..1 range; `normalize` takes those in the 0..255 range.
            triples = list(zip(own.mean, own.std, student.mean, student.std, strict=True))
            mean = [(m_t - m) / s / 255 for m_t, _, m, s in triples]
            crops = normalize(crops, mean, [s_t / s / 255 for _, s_t, _, s in triples])
        if self.size is not None and self.size != crops.shape[-1]:
            crops = F.interpolate(crops, size=(self.size, self.size), mode="bicubic", antialias=True)
        cls, patches = self.backbone(crops)
        return Features(cls.float(), on_grid(patches.float(), grid))


def open_teachers(weights: Sequence[Path], size: int | None) -> list[Teacher]:
    """In evaluation mode, on the CPU.

    Raises:
        SurgdinoError: a file is missing, damaged or not that of a vision transformer.
    """
    teachers = []
    for path in weights:
        backbone, report = open_weights(path)
        teachers.append(Teacher(backbone.requires_grad_(False).eval(), report, size))
    return teachers


def check_size(teacher: Teacher, global_size: int) -> None:
    """Raise where the crops that it would see do not divide into its patches."""
    side, patch = teacher.size or global_size, teacher.backbone.patch_size
    if side % patch:
        raise SurgdinoError(
            "a teacher's crops do not divide into its patches",
            file=teacher.report.path,
            place="crops.global_size" if teacher.size is None else "method.teacher_size",
            expected=f"a multiple of {patch}",
            found=side,
            fix=f"use method.teacher_size={max(round(side / patch), 1) * patch}",
        )


class Adaptor(nn.Module):
    """Maps of a student's class tokens and patches into the space of one teacher; [..., D] -> [..., D_T], centred.

    The teacher's means over the first batch of the run are taken off its tokens. Of PHI-S (Ranzinger et al. 2024, arXiv
    2410.01680), which rotates a teacher's features and divides them by one number besides, this is all that a cosine
    sees. Where the widths agree a linear map begins as the identity: then it maps to the teacher's own space, and the
    same means are taken off. Any other map learns to give centred tokens itself.

    Attributes:
        means: buffer [2, D_T], of class tokens and of patches; those of the average count.
    """

    means: Tensor

    def __init__(self, width: int, out: int, hidden: int) -> None:
        super().__init__()
        self.same = width == out and not hidden
        self.cls, self.patch = mlp(width, hidden, out), mlp(width, hidden, out)
        for linear in (self.cls, self.patch):
            if self.same and isinstance(linear, nn.Linear):
                nn.init.eye_(linear.weight)
                nn.init.zeros_(linear.bias)
        self.register_buffer("means", torch.zeros(2, out))

    def forward(self, tokens: Features, means: Tensor) -> Features:
        """In fp32; `means` are the average's."""
        mapped = self.cls(tokens.cls).float(), self.patch(tokens.patches).float()
        return Features(mapped[0] - means[0], mapped[1] - means[1]) if self.same else Features(*mapped)

    @torch.no_grad()
    def measure(self, tokens: Sequence[Features], processes: ProcessGroup) -> None:
        """Take the means of a step's tokens, one entry a micro-batch; for all processes to call."""
        for mean, parts in zip(self.means, zip(*tokens, strict=True), strict=True):
            rows = [part.flatten(0, -2) for part in parts]
            count = mean.new_full((1,), sum(len(part) for part in rows))
            total = processes.sum(torch.cat([torch.stack([part.sum(0) for part in rows]).sum(0), count]))
            mean.copy_(total[:-1] / total[-1])
