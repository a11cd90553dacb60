"""The settings of method=dino."""

from __future__ import annotations

from dataclasses import dataclass

from surgdino.config import Share
from surgdino.engine.methods.parts.prototype_settings import PrototypeSettings


@dataclass(frozen=True)
class Settings(PrototypeSettings):
    """The `method` section; configs/method/dino.yaml explains the keys."""

    centre_momentum: Share
