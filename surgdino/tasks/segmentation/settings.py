"""The settings of task=segmentation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from surgdino import discovery
from surgdino.config import BelowOne, Side

LossName = Literal["dice_ce", "dice_focal"]


@dataclass(frozen=True)
class SegmentationSettings:
    """Key for key what configs/task/segmentation.yaml explains."""

    name: str
    head: str
    maps: Annotated[int, Field(ge=1, le=4096)]
    classes: Literal["separate", "exclusive"]
    loss: LossName
    balance: Literal["inverse-root", "none"]
    window: Side | None
    overlap: BelowOne

    def __post_init__(self) -> None:
        discovery.require(self.head, discovery.names("surgdino.tasks.segmentation.heads"), "task.head")
