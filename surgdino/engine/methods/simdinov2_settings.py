"""The settings of method=simdinov2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from surgdino.config import NonNegative, PositiveInt, Range, Share, Width
from surgdino.engine.settings import MethodSettings

Gamma = Literal["balanced", "theory"]


@dataclass(frozen=True)
class Settings(MethodSettings):
    """The `method` section; configs/method/simdinov2.yaml explains the keys."""

    expa_type: Literal[0, 1]
    eps: Annotated[float, Field(ge=1e-6, le=1e6)]
    gamma: Gamma
    coeff: NonNegative
    group_size: PositiveInt | None
    pooled_groups: PositiveInt
    patch_weight: NonNegative
    head_hidden: Width
    head_out: Width
    mask_probability: Share
    mask_ratio: Range
