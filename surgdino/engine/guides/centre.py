"""What is spread out within operations: the level of each operation is taken off before a method spreads features."""

from __future__ import annotations

from dataclasses import replace

from surgdino.engine.guide import Facts, Guide, Known
from surgdino.engine.guides.centre_settings import Settings
from surgdino.engine.processes import Pool


class Centre(Guide):
    """Features less `weight` times the mean of their operation in the group, inside the coding rate or KoLeo.

    What operations differ by then fills no space, and images of one operation have to differ. It has no head.
    """

    settings: Settings

    def __init__(self, key: str, settings: Settings, embed_dim: int, facts: Facts) -> None:
        super().__init__(key, settings)

    @classmethod
    def reads(cls, settings: Settings) -> tuple[str, ...]:
        """`operation`: int64."""
        return ("operation",)

    def spreads(self, pool: Pool, known: Known) -> Pool:
        """With the operation of each image that it completes."""
        operation = known.facts["operation"]
        return replace(
            pool,
            operation=operation if pool.share > 1 else operation[:, known.own],
            centred=self.settings.weight,
        )
