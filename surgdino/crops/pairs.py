"""Temporal pairs: the second half of an image's views may come from a moment before or after the first."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from surgdino.frames.store import FrameStore


def partner(store: FrameStore, index: int, seconds: float | None, seed: int) -> int:
    """The frame that gives an image's second global view and the second half of its local ones.

    Drawn evenly from the other stored frames of the same video at most `seconds` away; the frame itself where there is
    none, or where `seconds` is None.

    Args:
        store: the frames.
        index: the image's own frame.
        seconds: the largest distance in time, either way.
        seed: any integer; the same one draws the same partner.
    """
    if seconds is None:
        return index
    near = store.near(index, seconds)
    if len(near) < 2:
        return index
    drawn = near[random.Random(seed).randrange(len(near) - 1)]
    return drawn + (drawn >= index)  # the frame itself is skipped over
