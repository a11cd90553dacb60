"""The windowed transformer that looks ahead as far as it looks back, for videos that have ended."""

from __future__ import annotations

from torch import nn

from surgdino.tasks.phase.temporal import Sizes
from surgdino.tasks.phase.temporal.transformer import DEFAULTS as DEFAULTS
from surgdino.tasks.phase.temporal.transformer import WindowedTransformer


def build(features: int, classes: int, sizes: Sizes) -> nn.Module:
    """The offline model; L layers look L (window - 1) frames back and ahead."""
    return WindowedTransformer(features, classes, sizes, online=False)
