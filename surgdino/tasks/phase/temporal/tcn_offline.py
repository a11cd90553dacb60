"""TeCNO's network with convolutions centred on the frame: it also looks ahead, for videos that have ended."""

from __future__ import annotations

from torch import nn

from surgdino.tasks.phase.temporal import Sizes
from surgdino.tasks.phase.temporal.tcn import DEFAULTS as DEFAULTS
from surgdino.tasks.phase.temporal.tcn import TemporalConvolutions


def build(features: int, classes: int, sizes: Sizes) -> nn.Module:
    """The offline model; with 8 layers its two stages look 510 frames back and ahead."""
    return TemporalConvolutions(features, classes, sizes, online=False)
