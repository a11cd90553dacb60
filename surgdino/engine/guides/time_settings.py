"""The settings of guides of the kind `time`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from surgdino.config import Hidden
from surgdino.engine.settings import GuideSettings


@dataclass(frozen=True)
class Settings(GuideSettings):
    """The `guide.time` section; configs/guide/time.yaml explains the keys."""

    bins: Annotated[int, Field(ge=0, le=1000)]
    head_hidden: Hidden
