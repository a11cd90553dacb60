"""The settings of task=tools."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from surgdino.config import MOST, BelowOne, Hidden
from surgdino.tasks.settings import MultilabelLoss, Tokens


@dataclass(frozen=True)
class ToolsSettings:
    """The `task` section; configs/task/tools.yaml explains every key."""

    name: str
    tokens: Tokens
    pool_heads: Annotated[int, Field(ge=1, le=64)]
    hidden: Hidden
    dropout: BelowOne
    loss: MultilabelLoss
    positive_weight_cap: Annotated[float, Field(ge=1, le=MOST)]
    repeat_threshold: BelowOne
