"""What a table says of each operation or video (hospital, tower, robot, ...), or which operation it is."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from surgdino.engine.guide import Facts, Guide, Known, nothing_known
from surgdino.engine.guides.column_settings import Settings
from surgdino.engine.methods.parts.heads import mlp

OPERATION = "operation"


class Column(Guide):
    """Classification; an adversary's gradient is reversed."""

    settings: Settings
    head: nn.Module

    def __init__(self, key: str, settings: Settings, embed_dim: int, facts: Facts) -> None:
        super().__init__(key, settings)
        self.fact = fact_of(settings.column)
        values = np.unique(facts[self.fact])
        classes = int((values >= 0).sum())
        if classes < 2:
            fix = "leave it out" if settings.column == OPERATION else "leave it out, or complete data.table"
            raise nothing_known(key, f"at least two values of {settings.column}", fix, found=str(classes))
        self.head = mlp(embed_dim, settings.head_hidden, int(values.max()) + 1)

    @classmethod
    def reads(cls, settings: Settings) -> tuple[str, ...]:
        """The class of each frame: int64, negative where it is not known."""
        return (fact_of(settings.column),)

    @property
    def reverses(self) -> bool:
        """As set."""
        return self.settings.adversarial

    def loss(self, cls: Tensor, known: Known) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy; `accuracy` in percent."""
        classes = known.facts[self.fact]
        there, target = classes >= 0, classes[:, known.own].clamp(min=0)
        logits = self.head(cls)
        values = F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none").view_as(target)
        loss = known.mean(values, there)
        right = known.mean((logits.argmax(-1) == target).float(), there)
        return loss, {"": loss.detach(), "accuracy": 100 * right.detach()}


def fact_of(column: str) -> str:
    """The fact that holds a column: the operation is always known, all else stands in the table."""
    return OPERATION if column == OPERATION else f"column:{column}"
