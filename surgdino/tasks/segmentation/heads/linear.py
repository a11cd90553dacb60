"""The linear probe: each patch token by itself says how much of each class its patch shows."""

from __future__ import annotations

from torch import Tensor, nn

from surgdino.tasks.segmentation.heads import believe_little

IMAGES = False
DEFAULTS = {"epochs": 20, "lr": 1e-2}


def layers(depth: int) -> tuple[int, ...]:
    """The last block's tokens alone."""
    return (-1,)


def build(width: int, read: int, classes: int, maps: int) -> nn.Module:
    """A probe over tokens of `width` from `read` layers; `maps` is for heads that have maps."""
    return LinearProbe(width * read, classes)


class LinearProbe(nn.Module):
    """Batch-normalised tokens and one linear layer, as DINOv2 probes segmentation (Oquab et al. 2023, section 7.4).

    Without the normalisation, how fast it learns would hang on the scale that a backbone's features happen to have.
    """

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(features)
        self.classify = nn.Linear(features, classes)
        believe_little(self.classify)

    def forward(self, tokens: Tensor, grid: tuple[int, int], images: Tensor | None = None) -> Tensor:
        """Logits [B, C, h, w], one a patch."""
        flat = self.norm(tokens.float().flatten(0, 1))
        return self.classify(flat).unflatten(0, tokens.shape[:2]).transpose(1, 2).unflatten(2, grid)
