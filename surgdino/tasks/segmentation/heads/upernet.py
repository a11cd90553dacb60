"""UPerNet over a plain vision transformer: the deepest layer pooled at four sizes, a pyramid, all levels joined.

After Xiao et al. 2018 (arXiv 1807.10221), over four layers as BEiT and DINOv2 are given to it, with few maps.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from surgdino.tasks.segmentation.pyramid import SCALES, PyramidHead, Refine, resample

_POOLED = (1, 2, 3, 6)  # cells along a side, of PSPNet's pyramid pooling


class UPerNet(PyramidHead):
    """Logits at a quarter of a patch, from tokens alone."""

    defaults: ClassVar = {"epochs": 15, "lr": 2e-3}

    def __init__(self, width: int, layers: int, classes: int, maps: int) -> None:
        super().__init__(width, layers, classes, maps)
        self.pooled = nn.ModuleList(nn.Conv2d(maps, maps, 1) for _ in _POOLED)
        self.context = Refine(maps * (1 + len(_POOLED)), maps)
        self.smooth = nn.ModuleList(Refine(maps, maps) for _ in SCALES[:-1])
        self.join = Refine(maps * len(SCALES), maps)
        self.classify = self._classifier(nn.Conv2d(maps, classes, 1))

    def forward(self, tokens: Tensor, grid: tuple[int, int], images: Tensor | None = None) -> Tensor:
        """Logits [B, C, 4h, 4w]."""
        levels = [self.level(tokens, level, grid) for level in range(len(SCALES))]
        top = levels[-1]
        size = top.shape[2], top.shape[3]
        views = [top]
        for side, project in zip(_POOLED, self.pooled, strict=True):
            seen = project(F.adaptive_avg_pool2d(top, side))
            views.append(F.interpolate(seen, size=size, mode="bilinear", align_corners=False))
        levels[-1] = self.context(torch.cat(views, 1))
        for level in reversed(range(len(SCALES) - 1)):
            size = levels[level].shape[2], levels[level].shape[3]
            levels[level] = levels[level] + resample(levels[level + 1], size)
        smooth = [each(level) for each, level in zip(self.smooth, levels, strict=False)] + levels[-1:]
        size = smooth[0].shape[2], smooth[0].shape[3]
        return self.classify(self.join(torch.cat([resample(each, size) for each in smooth], 1)))
