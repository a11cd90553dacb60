"""The settings that multi-label tasks share."""

from __future__ import annotations

from dataclasses import dataclass

from surgdino.errors import SurgdinoError
from surgdino.tasks.triplet.loss import LossName


@dataclass(frozen=True)
class MultilabelSettings:
    """Keys of the `task` section.

    Attributes:
        pool_heads: heads of the attention pooling over patch tokens; 0 reads the class token alone.
        dropout: on the features of the classifiers.
        loss: see `loss.FOCUS`.
        positive_weight_cap: the most that a rare class's positives count for; 1 weights nothing.
        repeat_threshold: frames of classes that are in fewer than this share of them are drawn more often; 0 is off.
    """

    pool_heads: int = 4
    dropout: float = 0.0
    loss: LossName = "asymmetric"
    positive_weight_cap: float = 10.0
    repeat_threshold: float = 0.0

    def __post_init__(self) -> None:
        for key, holds, expected in (
            ("pool_heads", self.pool_heads >= 0, "0 or more"),
            ("dropout", 0 <= self.dropout < 1, "at least 0 and less than 1"),
            ("positive_weight_cap", self.positive_weight_cap >= 1, "1 or more"),
            ("repeat_threshold", 0 <= self.repeat_threshold < 1, "at least 0 and less than 1"),
        ):
            if not holds:
                found = getattr(self, key)
                raise SurgdinoError("unusable setting", place=f"task.{key}", expected=expected, found=found)

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
