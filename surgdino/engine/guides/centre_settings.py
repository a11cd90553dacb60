"""The settings of guides of the kind `centre`."""

from __future__ import annotations

from dataclasses import dataclass

from surgdino.engine.settings import GuideSettings


@dataclass(frozen=True)
class Settings(GuideSettings):
    """The `guide.centre` section; configs/guide/centre.yaml explains the keys."""
