"""Block masks for patch prediction: half of the global views, a share of patches spread over a range (iBOT, DINOv2).

Which views are masked and how much is one draw for the whole step; where the blocks lie is a draw of each view. So the
masks of an image do not depend on how many processes share the batch.
"""

from __future__ import annotations

import math
import random

import numpy as np

_TRIES = 10


def sample_masks(
    count_views: int,
    grid: tuple[int, int],
    rng: random.Random,
    *,
    probability: float = 0.5,
    ratio: tuple[float, float] = (0.1, 0.5),
    aspect: tuple[float, float] = (0.3, 1 / 0.3),
    min_patches: int = 4,
) -> np.ndarray:
    """Masks of one step.

    Args:
        count_views: global views of the step.
        grid: patches down and across.
        probability: share of views that get a mask.
        ratio: range of the masked share of a masked view's patches.
        aspect: range of a block's height / width.
        min_patches: smallest block.

    Returns:
        bool [count_views, h * w], True where the patch is masked; all False in the views that get none.
    """
    ratios = mask_ratios(count_views, rng, probability=probability, ratio=ratio)
    masks = np.zeros((count_views, grid[0] * grid[1]), dtype=bool)
    for row, share in zip(masks, ratios, strict=True):
        row[:] = block_mask(grid, share, rng, aspect=aspect, min_patches=min_patches).ravel()
    return masks


def mask_ratios(
    count_views: int, rng: random.Random, *, probability: float = 0.5, ratio: tuple[float, float] = (0.1, 0.5)
) -> list[float]:
    """The share to mask in each view: `probability` of the views draw from equal strata of `ratio`, the rest get 0."""
    masked = int(count_views * probability + 0.5)
    step = (ratio[1] - ratio[0]) / max(masked, 1)
    shares = [ratio[0] + step * (stratum + rng.random()) for stratum in range(masked)]
    shares += [0.0] * (count_views - masked)
    rng.shuffle(shares)
    return shares


def block_mask(
    grid: tuple[int, int],
    share: float,
    rng: random.Random,
    *,
    aspect: tuple[float, float] = (0.3, 1 / 0.3),
    min_patches: int = 4,
) -> np.ndarray:
    """bool [h, w] of which rectangular blocks cover about `share`, never more; stops where no further block fits."""
    mask = np.zeros(grid, dtype=bool)
    target, covered = int(share * mask.size), 0
    while covered < target:
        added = _add_block(mask, target - covered, rng, aspect, min_patches)
        if added == 0:
            break
        covered += added
    return mask


def _add_block(mask: np.ndarray, room: int, rng: random.Random, aspect: tuple[float, float], min_patches: int) -> int:
    """Cover one more block that adds 1 to `room` patches; return how many it added, 0 where ten draws all failed."""
    height, width = mask.shape
    narrow, wide = math.log(aspect[0]), math.log(aspect[1])
    for _ in range(_TRIES):
        area = min_patches + (max(room, min_patches) - min_patches) * rng.random()
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
