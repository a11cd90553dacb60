"""The settings of guides of the kind `column`."""

from __future__ import annotations

from dataclasses import dataclass

from surgdino.config import Hidden, Text
from surgdino.engine.settings import GuideSettings


@dataclass(frozen=True)
class Settings(GuideSettings):
    """A section of `guide`; configs/guide/column.yaml explains the keys."""

    column: Text
    adversarial: bool
    head_hidden: Hidden
