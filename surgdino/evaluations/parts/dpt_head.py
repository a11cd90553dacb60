"""A convolutional head that reads depth from patch tokens of four layers: DPT (Ranftl et al. 2021, arXiv 2103.13413).

Its parts and sizes are those with which DINOv2 (Oquab et al. 2023, arXiv 2304.07193) is evaluated. Depth is the
exponential of what it says, which begins at the training depths' mean logarithm; there it is a ReLU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LAYERS = 4
UPSAMPLING = 16  # of the patch grid
_LAST = 32  # channels before the last convolution


class DPTHead(nn.Module):
    """Patch tokens [b, side, side, 5 D] to depth [b, 16 side, 16 side]: of four layers, then the class token."""

    mean: Tensor
    deviation: Tensor

    def __init__(
        self, mean: Tensor, deviation: Tensor, channels: int, known: Tensor, nearest: float, farthest: float
    ) -> None:
        """Args:
        mean, deviation: [5 D] of the training tokens.
        channels: of the maps that are fused.
        known: all depths of training.
        nearest, farthest: depths, between which the result lies.
        """
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation.where(deviation > 0, 1.0))
        self.dim, self.level = len(mean) // (LAYERS + 1), float(known.double().log().mean())
        self.range = math.log(nearest), math.log(farthest)
        with torch.random.fork_rng([]):  # the same start for every backbone
            torch.manual_seed(0)
            self._build(channels)

    def _build(self, channels: int) -> None:
        dim = self.dim
        maps = [max(dim // 8, 1), max(dim // 4, 1), max(dim // 2, 1), dim]
        self.readout = nn.ModuleList(nn.Sequential(nn.Linear(2 * dim, dim), nn.GELU()) for _ in maps)
        self.reduce = nn.ModuleList(nn.Conv2d(dim, each, 1) for each in maps)
        self.resample = nn.ModuleList(
            [
                nn.ConvTranspose2d(maps[0], maps[0], 4, stride=4),
                nn.ConvTranspose2d(maps[1], maps[1], 2, stride=2),
                nn.Identity(),
                nn.Conv2d(maps[3], maps[3], 3, stride=2, padding=1),
            ]
        )
        self.widen = nn.ModuleList(nn.Conv2d(each, channels, 3, padding=1, bias=False) for each in maps)
        self.residuals = nn.ModuleList(_Residual(channels) for _ in maps[1:])  # the coarsest map has nothing to add to
        self.refine = nn.ModuleList(_Residual(channels) for _ in maps)
        self.project = nn.ModuleList(nn.Conv2d(channels, channels, 1) for _ in maps)
        self.joined = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU())
        self.halve = nn.Conv2d(channels, channels // 2, 3, padding=1)
        self.last = nn.Sequential(nn.Conv2d(channels // 2, _LAST, 3, padding=1), nn.ReLU(), nn.Conv2d(_LAST, 1, 1))

    def forward(self, tokens: Tensor) -> Tensor:
        """Depth between nearest and farthest."""
        maps = self._reassembled((tokens - self.mean) / self.deviation)
        sizes = [each.shape[-1] for each in maps] + [2 * maps[0].shape[-1]]
        fused = self._fused(None, maps[3], 3, sizes[2])
        for k in (2, 1, 0):
            fused = self._fused(fused, maps[k], k, sizes[k - 1] if k else sizes[-1])
        found = self.last(_enlarged(self.halve(self.joined(fused)), 2 * sizes[-1]))[:, 0]
        return (found + self.level).clamp(*self.range).exp()

    def _reassembled(self, tokens: Tensor) -> Sequence[Tensor]:
        """Maps of the layers, at 4, 2, 1 and 1/2 times the patch grid."""
        *layers, class_token = tokens.split(self.dim, dim=3)
        maps = []
        for k, layer in enumerate(layers):
            read = self.readout[k](torch.cat([layer, class_token], 3)).permute(0, 3, 1, 2)
            maps.append(self.widen[k](self.resample[k](self.reduce[k](read))))
        return maps

    def _fused(self, coarser: Tensor | None, finer: Tensor, k: int, side: int) -> Tensor:
        """A layer's map, added to what comes from the coarser ones, at `side` of the next."""
        found = finer if coarser is None else coarser + self.residuals[k](finer)
        return torch.as_tensor(self.project[k](_enlarged(self.refine[k](found), side)))


class _Residual(nn.Module):
    """Two convolutions, each after a ReLU, beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))

    def forward(self, maps: Tensor) -> Tensor:
        """[b, channels, h, w] to the same."""
        return maps + torch.as_tensor(self.second(F.relu(self.first(F.relu(maps)))))


def _enlarged(maps: Tensor, side: int) -> Tensor:
    return F.interpolate(maps, (side, side), mode="bilinear", align_corners=True)
