"""How a card says where pictures lie, and the files beside them that tell of each: depth maps, masks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from surgdino.config import Share
from surgdino.errors import SurgdinoError

_Pattern = Annotated[str, Field(pattern=r"^[^#]*#?[^#0-9]*$")]  # the number is the last one of a name


@dataclass(frozen=True, kw_only=True)
class PairLayout:
    """Pictures of recordings, each with a file.

    Attributes:
        pairs: picture and file inside a recording's folder, without suffix, `#` being the frame's number; a picture
            without it beside a file with it is a film. Several where releases differ: the first that is there counts.
        operation: a regular expression on the recording's path inside the root; its one group is the operation's place.
        sparse: whether pictures without a file are as released.
    """

    pairs: Annotated[tuple[tuple[_Pattern, _Pattern], ...], Field(min_length=1)]
    operation: str = "([^/]+)$"
    sparse: bool = False

    def __post_init__(self) -> None:
        if any("#" in picture and "#" not in file for picture, file in self.pairs):
            expected = "# for the frame's number in both names, in none, or in the second"
            raise SurgdinoError("the card's pairs cannot be used", expected=expected, found=str(self.pairs))
        try:
            groups = re.compile(self.operation).groups
        except re.error:
            groups = -1
        if groups != 1:
            expected = "a regular expression with one group"
            raise SurgdinoError(
                "the card's pattern of operations cannot be used", expected=expected, found=self.operation
            )


@dataclass(frozen=True, kw_only=True)
class MaskLayout(PairLayout):
    """The `mask_files` of a card; its `masks` say which id or colour is which class.

    Attributes:
        background: the id of pixels that show none of the classes.
        strays: share of a mask's pixels that may have the value of no class; they are unlabelled. More is refused.
    """

    background: Annotated[int, Field(ge=0, le=65535)] = 0
    strays: Share = 0.0
