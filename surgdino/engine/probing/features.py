"""What a backbone makes of the probe's frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from surgdino.backbone.preprocess import Preprocess
from surgdino.backbone.vit import Backbone, Features

_BATCH = 32
Autocast = Callable[[], AbstractContextManager]


@dataclass(frozen=True)
class ProbeFeatures:
    """Features of n frames, on the CPU.

    Attributes:
        cls, mean_patches: float32 [n, D], class tokens and means of the patch tokens.
        patches: float16 [m, N, D], the patch tokens of the frames at `dense`: all of them would not fit into memory.
        dense: int64 [m], ascending.
        encode: pictures uint8 [side, side, 3] -> patch tokens [b, N, D] of further views, by the same backbone.
    """

    cls: Tensor
    mean_patches: Tensor
    patches: Tensor
    dense: np.ndarray
    encode: Callable[[Sequence[np.ndarray]], Tensor]

    def patches_of(self, rows: np.ndarray) -> Tensor:
        """Patch tokens [len(rows), N, D] of frames that are among `dense`."""
        return self.patches[np.searchsorted(self.dense, rows)]


@torch.no_grad()
def extract(
    backbone: Backbone, pictures: Sequence[np.ndarray], dense: np.ndarray, preprocess: Preprocess, autocast: Autocast
) -> ProbeFeatures:
    """Features of all pictures (uint8 [side, side, 3]), the backbone in evaluation mode, which draws nothing."""
    device = backbone.mask_token.device
    wanted = np.zeros(len(pictures), bool)
    wanted[dense] = True

    def forward(some: Sequence[np.ndarray]) -> Features:
        with torch.no_grad(), autocast():
            return backbone(preprocess(list(some)).to(device))

    cls, means, patches = [], [], []
    for start in range(0, len(pictures), _BATCH):
        features = forward(pictures[start : start + _BATCH])
        cls.append(features.cls.float().cpu())
        means.append(features.patches.float().mean(1).cpu())
        keep = torch.from_numpy(wanted[start : start + _BATCH])
        patches.append(features.patches.cpu()[keep].half())
    return ProbeFeatures(
        torch.cat(cls),
        torch.cat(means),
        torch.cat(patches),
        np.sort(dense),
        lambda some: forward(some).patches.float().cpu(),
    )
