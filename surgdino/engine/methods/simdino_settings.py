"""The settings of method=simdino."""

from __future__ import annotations

from dataclasses import dataclass, field

from surgdino.config import Range
from surgdino.engine.methods import simdinov2_settings


@dataclass(frozen=True)
class Settings(simdinov2_settings.Settings):
    """The `method` section; configs/method/simdino.yaml explains the keys. What it leaves out is fixed here."""

    patch_weight: float = field(default=0.0, init=False)
    mask_probability: float = field(default=0.0, init=False)
    mask_ratio: Range = field(default=(0.1, 0.5), init=False)
