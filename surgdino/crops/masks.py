"""Block masks for patch prediction: half of the global views, a share of patches spread over a range (iBOT, DINOv2).

Which views are masked and how much is one draw for the whole step; where the blocks lie is a draw of each view. So the
masks of an image do not depend on how many processes share the batch.
"""

from __future__ import annotations

import math
import random

import numpy as np

_MIN_PATCHES = 4  # of a block
_ASPECT = (0.3, 1 / 0.3)  # of a block, height / width
_TRIES = 10


def mask_ratios(views: int, rng: random.Random, probability: float, ratio: tuple[float, float]) -> list[float]:
    """The share to mask in each view: `probability` of the views draw from equal strata of `ratio`, the rest get 0."""
    masked = int(views * probability + 0.5)
    step = (ratio[1] - ratio[0]) / max(masked, 1)
    shares = [ratio[0] + step * (stratum + rng.random()) for stratum in range(masked)]
    shares += [0.0] * (views - masked)
    rng.shuffle(shares)
    return shares


def block_mask(grid: tuple[int, int], share: float, rng: random.Random) -> np.ndarray:
    """bool [h, w] of which rectangular blocks cover about `share`, never more; stops where no further block fits."""
    mask = np.zeros(grid, dtype=bool)
    room = int(share * mask.size)
    while room > 0 and (added := _add_block(mask, room, rng)):
        room -= added
    return mask


def _add_block(mask: np.ndarray, room: int, rng: random.Random) -> int:
    """Cover one more block that adds 1 to `room` patches; return how many it added, 0 where ten draws all failed."""
    height, width = mask.shape
    narrow, wide = math.log(_ASPECT[0]), math.log(_ASPECT[1])
    for _ in range(_TRIES):
        area = _MIN_PATCHES + (max(room, _MIN_PATCHES) - _MIN_PATCHES) * rng.random()
        shape = math.exp(narrow + (wide - narrow) * rng.random())
        rows, columns = max(1, round(math.sqrt(area * shape))), max(1, round(math.sqrt(area / shape)))
        if rows >= height or columns >= width:
            continue
        top, left = rng.randrange(height - rows + 1), rng.randrange(width - columns + 1)
        block = mask[top : top + rows, left : left + columns]
        added = rows * columns - int(np.count_nonzero(block))
        if 0 < added <= room:
            block[:] = True
            return added
    return 0
