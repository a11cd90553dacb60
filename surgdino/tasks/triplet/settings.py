"""The `task` section of triplet recognition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from surgdino.config import NonNegative, NonNegativeInt
from surgdino.errors import SurgdinoError
from surgdino.tasks.triplet.loss import LossName

_BelowOne = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True)
class TripletSettings:
    """Key for key what configs/task/triplet.yaml explains."""

    name: str
    pool_heads: NonNegativeInt
    dropout: _BelowOne
    loss: LossName
    positive_weight_cap: Annotated[float, Field(ge=1)]
    repeat_threshold: _BelowOne
    component_loss: NonNegative
    component_weight: NonNegative

    def check_width(self, width: int) -> None:
        """Refuse a number of pooling heads that the backbone's width does not divide into.

        Raises:
            SurgdinoError: it does not.
        """
        if self.pool_heads and width % self.pool_heads:
            raise SurgdinoError(
                "the pooling heads do not divide the backbone's width",
                place="task.pool_heads",
                expected=f"a divisor of {width}, or 0",
                found=self.pool_heads,
            )
