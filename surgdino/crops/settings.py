"""The `crops` section: how many views of an image, how large, and of which frames."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import Field

from surgdino.config import Positive, PositiveInt, Range, Side
from surgdino.errors import SurgdinoError

GLOBAL_VIEWS = 2
_Ratio = Annotated[float, Field(ge=0.01, le=100)]


@dataclass(frozen=True)
class CropSize:
    """One of `crops.sizes`; `share` of the steps have crops of these sizes."""

    global_size: Side
    local_size: Side
    share: Annotated[float, Field(gt=0, le=1)]


@dataclass(frozen=True)
class CropSettings:
    """The `crops` section of the configuration, key for key."""

    global_size: Side
    local_size: Side
    local_count: Annotated[int, Field(ge=0, le=100)]
    global_scale: Range
    local_scale: Range
    ratio: tuple[_Ratio, _Ratio]
    inside_disc: bool
    pair_seconds: Positive | None
    pair: Literal["time", "neighbours"]
    pair_count: Annotated[int, Field(ge=1, le=1000)]
    pair_every: PositiveInt
    sizes: Annotated[tuple[CropSize, ...], Field(min_length=1)] | None

    def __post_init__(self) -> None:
        shares = [size.share for size in self.sizes or ()]
        if shares and abs(sum(shares) - 1) > 1e-6:
            summed = " + ".join(f"{share:g}" for share in shares)
            raise SurgdinoError(
                "unusable setting", place="crops.sizes", expected="shares that add up to 1", found=summed
            )
        for key in ("global_scale", "local_scale", "ratio"):
            low, high = getattr(self, key)
            if not 0 < low <= high:
                expected, found = "[low, high], both above 0", [low, high]
                raise SurgdinoError("unusable setting", place=f"crops.{key}", expected=expected, found=found)

    @property
    def each(self) -> tuple[CropSettings, ...]:
        """One for every pair of sizes that a step may have."""
        pairs = [(size.global_size, size.local_size) for size in self.sizes or (self,)]
        return tuple(replace(self, global_size=one, local_size=other, sizes=None) for one, other in pairs)

    @property
    def largest(self) -> CropSettings:
        """Of `each` the one that takes most memory."""
        return max(self.each, key=lambda crops: crops.image_bytes)

    @property
    def side(self) -> int:
        """Of the largest global crops, in pixels."""
        return max(crops.global_size for crops in self.each)

    @property
    def image_bytes(self) -> int:
        """Of all crops of an image, at most."""
        if self.sizes:
            return self.largest.image_bytes
        return 3 * (GLOBAL_VIEWS * self.global_size**2 + self.local_count * self.local_size**2)
