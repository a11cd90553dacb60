"""The settings of method=distill."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from surgdino.config import Hidden, Locations, NonNegative, PositiveInt, Range, Share, Side
from surgdino.engine.settings import MethodSettings


@dataclass(frozen=True)
class Settings(MethodSettings):
    """The `method` section; configs/method/distill.yaml explains the keys."""

    teachers: Locations
    teacher_size: Side | None
    adaptor_hidden: Hidden
    patch_weight: NonNegative
    local_weight: NonNegative
    expa_weight: NonNegative
    eps: Annotated[float, Field(ge=1e-6, le=1e6)]
    group_size: PositiveInt | None
    mask_probability: Share
    mask_ratio: Range
