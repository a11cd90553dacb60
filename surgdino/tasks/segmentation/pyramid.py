"""Four layers' tokens as a pyramid of maps, for heads that see at several scales.

After the reassembly of DPT (Ranftl et al. 2021, section 3.1), where shallow layers serve the fine scales.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from surgdino.tasks.segmentation.heads import DenseHead

# Of the pyramid's levels, in units of the patch grid: the first layer serves the finest.
SCALES = (4.0, 2.0, 1.0, 0.5)
_GROUPS = 8


class PyramidHead(DenseHead):
    """Reads four blocks, each through a norm and a linear layer into `maps` feature maps."""

    def __init__(self, width: int, layers: int, classes: int, maps: int) -> None:
        super().__init__(width, layers, classes, maps)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in SCALES)
        self.reduce = nn.ModuleList(nn.Linear(width, maps) for _ in SCALES)

    @staticmethod
    def layers(depth: int) -> tuple[int, ...]:
        """Four blocks, evenly spaced up to the last; of a very shallow backbone some of them twice."""
        levels = len(SCALES)
        return tuple(max(round(depth * (level + 1) / levels), 1) - 1 - depth for level in range(levels))

    def level(self, tokens: Tensor, level: int, grid: tuple[int, int]) -> Tensor:
        """[B, maps, rows, columns] of one level, at its own scale."""
        width = tokens.shape[2] // len(SCALES)
        own = tokens[..., level * width : (level + 1) * width].float()
        maps = self.reduce[level](self.norms[level](own)).transpose(1, 2).unflatten(2, grid)
        rows, columns = (max(round(side * SCALES[level]), 1) for side in grid)
        return resample(maps, (rows, columns))


class Refine(nn.Sequential):
    """A convolution, a norm and a bend."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, size: int = 3) -> None:
        groups = _GROUPS if outputs % _GROUPS == 0 else 1
        super().__init__(
            nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=False),
            nn.GroupNorm(groups, outputs),  # batches are small, and of one process
            nn.GELU(),
        )


class Enlarge(nn.Sequential):
    """Twice the resolution, as EoMT brings patches to that of masks (Kerssies et al. 2025)."""

    def __init__(self, width: int) -> None:
        super().__init__(
            nn.ConvTranspose2d(width, width, 2, stride=2),
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False),
            nn.GroupNorm(1, width),
        )


def resample(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """[B, C, h, w] at another size: averaged where it shrinks, bilinear where it grows."""
    if maps.shape[-2:] == size:
        return maps
    if maps.shape[-1] > size[-1]:
        return F.adaptive_avg_pool2d(maps, size)
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
