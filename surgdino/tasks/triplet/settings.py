"""The settings of task=triplet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from surgdino.config import MOST, BelowOne, NonNegative, Share
from surgdino.errors import SurgdinoError
from surgdino.tasks.settings import MultilabelLoss


@dataclass(frozen=True)
class TripletSettings:
    """The `task` section; configs/task/triplet.yaml explains every key."""

    name: str
    head: Literal["pooled", "query"]
    pool_heads: Annotated[int, Field(ge=0, le=64)]
    decoder_layers: Annotated[int, Field(ge=1, le=12)]
    decoder_width: Annotated[int, Field(ge=4, le=2048)]
    frames: Annotated[int, Field(ge=1, le=64)]
    dropout: BelowOne
    loss: MultilabelLoss
    positive_weight_cap: Annotated[float, Field(ge=1, le=MOST)]
    repeat_threshold: BelowOne
    component_loss: NonNegative
    component_weight: NonNegative
    soft_labels: Share

    def __post_init__(self) -> None:
        if self.head == "query" and not self.pool_heads:
            expected = "1 or more: the decoder attends to patch tokens with so many heads"
            raise SurgdinoError("task.pool_heads cannot be used", expected=expected, found=0)
