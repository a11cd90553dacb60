"""A light multi-scale decoder: four layers' tokens become a pyramid, fused from coarse to fine; a stem sees the pixels.

Patch tokens say what is there, to 16 pixels; the pixels, which the stem reads, say where exactly it ends.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from surgdino.tasks.segmentation.pyramid import SCALES, PyramidHead, Refine, resample

_STEM_MAPS = 32


class MultiScaleDecoder(PyramidHead):
    """Logits at a quarter of a patch: 4 pixels for patches of 16; `maps` feature maps on every level."""

    reads_images = True
    defaults: ClassVar = {"epochs": 15, "lr": 2e-3}

    def __init__(self, width: int, layers: int, classes: int, maps: int) -> None:
        super().__init__(width, layers, classes, maps)
        self.fuse = nn.ModuleList(Refine(maps, maps) for _ in SCALES)
        self.stem = nn.Sequential(Refine(3, _STEM_MAPS // 2, stride=2), Refine(_STEM_MAPS // 2, _STEM_MAPS, stride=2))
        self.join = Refine(maps + _STEM_MAPS, maps)
        self.classify = self._classifier(nn.Conv2d(maps, classes, 1))

    def forward(self, tokens: Tensor, grid: tuple[int, int], images: Tensor | None = None) -> Tensor:
        """Logits [B, C, 4h, 4w]."""
        if images is None:
            raise ValueError("the decoder's stem needs the images")
        fused: Tensor | None = None
        for level in reversed(range(len(SCALES))):
            maps = self.level(tokens, level, grid)
            size = maps.shape[2], maps.shape[3]
            fused = self.fuse[level](maps if fused is None else maps + resample(fused, size))
        assert fused is not None  # there is a level
        pixels = resample(self.stem(images), (fused.shape[2], fused.shape[3]))
        return self.classify(self.join(torch.cat([fused, pixels], 1)))
