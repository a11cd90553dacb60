"""A light multi-scale decoder: four layers' tokens become a pyramid, fused from coarse to fine; a stem sees the pixels.

After the reassembly of DPT (Ranftl et al. 2021, section 3.1), where shallow layers serve the fine scales, with a few
maps only. Patch tokens say what is there, to 16 pixels; the pixels, which the stem reads, say where exactly it ends.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from surgdino.tasks.segmentation.heads import DenseHead

# Of the pyramid's levels, in units of the patch grid: the first layer serves the finest.
_SCALES = (4.0, 2.0, 1.0, 0.5)
_STEM_MAPS = 32
_GROUPS = 8


class MultiScaleDecoder(DenseHead):
    """Logits at a quarter of a patch: 4 pixels for patches of 16; `maps` feature maps on every level."""

    reads_images = True
    defaults: ClassVar = {"epochs": 15, "lr": 2e-3}

    def __init__(self, width: int, layers: int, classes: int, maps: int) -> None:
        super().__init__(width, layers, classes, maps)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in _SCALES)
        self.reduce = nn.ModuleList(nn.Linear(width, maps) for _ in _SCALES)
        self.fuse = nn.ModuleList(_Refine(maps, maps) for _ in _SCALES)
        self.stem = nn.Sequential(_Refine(3, _STEM_MAPS // 2, stride=2), _Refine(_STEM_MAPS // 2, _STEM_MAPS, stride=2))
        self.join = _Refine(maps + _STEM_MAPS, maps)
        self.classify = self._classifier(nn.Conv2d(maps, classes, 1))

    @staticmethod
    def layers(depth: int) -> tuple[int, ...]:
        """Four blocks, evenly spaced up to the last; of a very shallow backbone some of them twice."""
        levels = len(_SCALES)
        return tuple(max(round(depth * (level + 1) / levels), 1) - 1 - depth for level in range(levels))

    def forward(self, tokens: Tensor, grid: tuple[int, int], images: Tensor | None = None) -> Tensor:
        """Logits [B, C, 4h, 4w]."""
        if images is None:
            raise ValueError("the decoder's stem needs the images")
        fused: Tensor | None = None
        for level in reversed(range(len(_SCALES))):
            rows, columns = (max(round(side * _SCALES[level]), 1) for side in grid)
            size = rows, columns
            maps = _resample(self._level(tokens, level, grid), size)
            fused = self.fuse[level](maps if fused is None else maps + _resample(fused, size))
        assert fused is not None  # there is a level
        pixels = _resample(self.stem(images), (fused.shape[2], fused.shape[3]))
        return self.classify(self.join(torch.cat([fused, pixels], 1)))

    def _level(self, tokens: Tensor, level: int, grid: tuple[int, int]) -> Tensor:
        width = tokens.shape[2] // len(_SCALES)
        own = tokens[..., level * width : (level + 1) * width].float()
        return self.reduce[level](self.norms[level](own)).transpose(1, 2).unflatten(2, grid)


class _Refine(nn.Sequential):
    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        groups = _GROUPS if outputs % _GROUPS == 0 else 1
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
            nn.GroupNorm(groups, outputs),  # batches are small, and of one process
            nn.GELU(),
        )


def _resample(maps: Tensor, size: tuple[int, int]) -> Tensor:
    if maps.shape[-2:] == size:
        return maps
    if maps.shape[-1] > size[-1]:
        return F.adaptive_avg_pool2d(maps, size)
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
