"""A backbone with a head that tells the class of every pixel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from surgdino.backbone.vit import Backbone


class DenseNetwork(nn.Module):
    """From normalised images to logits; the backbone's part of it learns as far as its parameters are told to."""

    def __init__(self, backbone: Backbone, head: nn.Module, layers: Sequence[int]) -> None:
        """Args:
        backbone: that the head was built for.
        head: of `surgdino.tasks.segmentation.heads`.
        layers: whose tokens it reads.
        """
        super().__init__()
        self.backbone, self.head, self.layers = backbone, head, tuple(layers)
        self._learns = any(parameter.requires_grad for parameter in backbone.parameters())

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, C, h, w] of normalised images [B, 3, H, W]."""
        with torch.set_grad_enabled(self._learns and torch.is_grad_enabled()):
            found = self.backbone.intermediate(images, self.layers)
        tokens = torch.cat([each.patches for each in found], dim=2)
        patch = self.backbone.patch_size
        return self.head(tokens, (images.shape[2] // patch, images.shape[3] // patch), images)

    def train(self, mode: bool = True) -> DenseNetwork:
        """A frozen backbone stays as it is in evaluation."""
        super().train(mode)
        if not self._learns:
            self.backbone.eval()
        return self
