"""The linear probe: each patch token by itself gives the classes of its patch."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from surgdino.tasks.segmentation.heads import DenseHead


class LinearProbe(DenseHead):
    """Batch-normalised tokens and one linear layer, as DINOv2 probes segmentation (Oquab et al. 2023, section 7.4).

    Without the normalisation, the learning speed would depend on the scale of a backbone's features.
    """

    defaults: ClassVar = {"epochs": 20, "lr": 1e-2}

    def __init__(self, width: int, layers: int, classes: int, maps: int = 0) -> None:
        super().__init__(width, layers, classes, maps)
        self.norm = nn.BatchNorm1d(width * layers)
        self.classify = self._classifier(nn.Linear(width * layers, classes))

    def forward(self, tokens: Tensor, grid: tuple[int, int], images: Tensor | None = None) -> Tensor:
        """Logits [B, C, h, w], one a patch."""
        flat = self.norm(tokens.float().flatten(0, 1))
        return self.classify(flat).unflatten(0, tokens.shape[:2]).transpose(1, 2).unflatten(2, grid)
