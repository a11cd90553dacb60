"""Heads that classify every pixel from patch tokens, one file each, discovered by file name: `task.head=NAME`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from surgdino import discovery

# What a fresh head believes of any pixel (Lin et al. 2017, section 4.1). A class that no training image is labelled for
# stays there, and is then seen nowhere instead of everywhere.
PRIOR = 0.1


class DenseHead(nn.Module):
    """B images of H x W pixels, N = h * w patches in row-major order, D the backbone's width, C classes.

    Attributes:
        reads_images: whether it reads the images beside the tokens.
        defaults: of the `train` section, over a frozen backbone.
    """

    reads_images: ClassVar[bool] = False
    defaults: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, width: int, layers: int, classes: int, maps: int) -> None:
        """Args:
        width: D.
        layers: how many blocks' tokens it reads, as `layers` says.
        classes: C.
        maps: feature maps, of heads that have any.
        """
        super().__init__()

    @staticmethod
    def layers(depth: int) -> tuple[int, ...]:
        """The blocks whose tokens it reads of a backbone of `depth`, -1 being the last."""
        return (-1,)

    def forward(self, tokens: Tensor, grid: tuple[int, int], images: Tensor | None = None) -> Tensor:
        """Logits [B, C, h', w'] over the same field of view, at a resolution of the head's own.

        Args:
            tokens: [B, N, D * layers].
            grid: (h, w).
            images: normalised [B, 3, H, W]; None for heads that read none.
        """
        raise NotImplementedError

    def _classifier(self, layer: nn.Linear | nn.Conv2d) -> nn.Linear | nn.Conv2d:
        """The last layer, initialised so that every class is unlikely everywhere."""
        nn.init.normal_(layer.weight, std=0.01)
        nn.init.constant_(layer.bias, math.log(PRIOR / (1 - PRIOR)))  # type: ignore[arg-type]
        return layer


def open_head(name: str) -> type[DenseHead]:
    """The class of that name."""
    return discovery.defined(discovery.load(__name__, name, "task.head"), DenseHead)
