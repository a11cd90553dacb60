"""The sections of `curate`; configs/curate.yaml explains their keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from surgdino.config import NonNegative, NonNegativeInt, Positive, PositiveInt, Share
from surgdino.errors import SurgdinoError

Cosine = Annotated[float, Field(gt=-1, le=1)]


@dataclass(frozen=True)
class UnusableSettings:
    """What makes a frame unusable."""

    black: bool
    out_of_body: bool
    blurred: Positive | None
    over_exposed: Share | None
    screen: Share | None
    still_seconds: Positive | None
    still_change: NonNegative


@dataclass(frozen=True)
class DuplicateSettings:
    """From which similarity on frames count as the same."""

    copies: bool
    along: Cosine | None
    along_quantile: Share | None
    across: Cosine | None
    across_quantile: Share | None
    across_by: Literal["groups", "semdedup"]
    order: Literal["hard", "easy", "random"]
    against: Cosine | None
    against_quantile: Share | None


@dataclass(frozen=True)
class RetrievalSettings:
    """How many frames a wanted one brings."""

    by: Literal["sample", "cluster"]
    neighbours: PositiveInt
    least: NonNegativeInt
    frames: PositiveInt


@dataclass(frozen=True)
class BalanceSettings:
    """In which proportions what is left is learnt from."""

    into: Literal["frames", "weights", "none"]
    by: Literal["hierarchy", "flat", "uniform"]
    levels: tuple[PositiveInt, ...] | None
    resamplings: NonNegativeInt
    operations: Literal["first", "last"] | None

    def __post_init__(self) -> None:
        if self.levels is not None and list(self.levels) != sorted(set(self.levels), reverse=True):
            expected, found = "numbers of clusters that fall, [2000, 250]", list(self.levels)
            raise SurgdinoError("unusable setting", place="balance.levels", expected=expected, found=found)
