"""The settings of method=dinov2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from surgdino.config import NonNegative, PositiveInt, Range, Share
from surgdino.engine.methods.parts.prototype_settings import PrototypeSettings


@dataclass(frozen=True)
class Settings(PrototypeSettings):
    """The `method` section; configs/method/dinov2.yaml explains the keys."""

    sinkhorn_iterations: Annotated[int, Field(ge=1, le=1000)]
    patch_weight: NonNegative
    koleo_weight: NonNegative
    group_size: PositiveInt | None
    mask_probability: Share
    mask_ratio: Range
