"""The settings of task=vqa."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from surgdino.config import BelowOne, Width
from surgdino.tasks.vqa.learned import Learned


@dataclass(frozen=True)
class VqaSettings:
    """The `task` section; configs/task/vqa.yaml explains every key."""

    name: str
    question_width: Width
    pool_heads: Annotated[int, Field(ge=1, le=64)]
    hidden: Width
    dropout: BelowOne
    learned: Learned | None
