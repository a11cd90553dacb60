"""The settings of task=instances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from surgdino import discovery
from surgdino.config import MOST, BelowOne, Share


@dataclass(frozen=True)
class InstancesSettings:
    """Key for key what configs/task/instances.yaml explains."""

    name: str
    head: str | None
    maps: Annotated[int, Field(ge=1, le=4096)]
    dropout: BelowOne
    mirrored: bool
    queries: Annotated[int, Field(ge=1, le=1000)]
    query_blocks: Annotated[int, Field(ge=1, le=100)]
    points: Annotated[int, Field(ge=16, le=MOST)]
    keep: Share
    most: Annotated[int, Field(ge=1, le=1000)]
    shown: Share

    def __post_init__(self) -> None:
        if self.head is not None:
            discovery.require(self.head, discovery.names("surgdino.tasks.instances.heads"), "task.head")
