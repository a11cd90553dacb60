"""The settings of guides of the kind `order`."""

from __future__ import annotations

from dataclasses import dataclass

from surgdino.config import Hidden
from surgdino.engine.settings import GuideSettings


@dataclass(frozen=True)
class Settings(GuideSettings):
    """The `guide.order` section; configs/guide/order.yaml explains the keys."""

    head_hidden: Hidden
