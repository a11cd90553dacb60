"""What the device forms of the augmentations are made of: OpenCV's operations, each image of a batch by its numbers.

All shapes depend on the sizes of crops alone, and nothing is read back: the host never waits for the device. Grey
levels are float32, 0 to 255, and rounded where OpenCV rounds. Symbols: b images of S x S pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from surgdino.crops.augment import turbulence
from surgdino.transfers import uploaded


def column(numbers: Tensor, place: int) -> Tensor:
    """[b, 1, 1]: one of the numbers of every image, to compute with [b, S, S]."""
    return numbers[:, place, None, None]


def levels(values: Tensor) -> Tensor:
    """The nearest grey levels."""
    return values.round().clamp(0, 255)


def affine(images: Tensor, matrix: Tensor, offset: Tensor | None = None) -> Tensor:
    """Each image's matrix [b, 3, 3] on its colours, plus one offset [b] for the three channels."""
    coloured = torch.bmm(matrix, images.flatten(2)).view_as(images)
    return coloured if offset is None else coloured + offset[:, None, None, None]


def blend(images: Tensor, kept: Tensor, added: Tensor) -> Tensor:
    """[b, 3, S, S] times `kept` [b, S, S] plus `added` [b, S, S], both in grey levels."""
    return (images * (kept / 255)[:, None]).round() + added[:, None]


def box_blur(planes: Tensor, side: int) -> Tensor:
    """[b, S, S]: mean of `side` x `side` pixels (odd), in whole levels, reflected at the border as `cv2.blur` does."""
    half = side // 2
    padded = functional.pad(planes[:, None], (half, half, half, half), mode="reflect")
    rows = functional.avg_pool2d(padded, (side, 1), stride=1)
    return functional.avg_pool2d(rows, (1, side), stride=1)[:, 0].round()


def exceeded_by(planes: Tensor, shares: Tensor) -> Tensor:
    """[b, n, 1, 1]: the grey level that each share [b, n] of a plane's pixels exceeds; see `turbulence.exceeded_by`."""
    flat = planes.flatten(1)
    counts = flat.new_zeros(len(flat), 1, 256).scatter_add_(
        2, flat.long()[:, None], flat.new_ones(1).expand_as(flat)[:, None]
    )
    return (counts.cumsum(2) < (1 - shares[..., None]) * flat.shape[1]).sum(2, dtype=flat.dtype)[..., None, None]


def windows(bank: Callable[[], np.ndarray], numbers: Tensor, first: int, size: int) -> Tensor:
    """[b, S, S] in whole levels: `turbulence.cut` of each image's window, five numbers from `first` on."""
    fields = constant(bank, numbers.device)
    field, start, length = (
        numbers[:, first].long(),
        numbers[:, first + 1 : first + 3],
        numbers[:, first + 3 : first + 5],
    )
    centres = ramp(size, numbers.device) + 0.5
    inside = (centres * (length / size)[..., None] - 0.5).clamp(min=0).minimum(length[..., None] - 1)
    place = (inside + start[..., None]) * (2 / fields.shape[-1]) + (1 / fields.shape[-1] - 1)  # [b, 2, S], -1 to 1
    rows, columns = place[:, 0, :, None].expand(-1, -1, size), place[:, 1, None].expand(-1, size, -1)
    chosen = fields.index_select(0, field)[:, None]
    return functional.grid_sample(chosen, torch.stack([columns, rows], dim=3), align_corners=False)[:, 0].round()


def add_grain(images: Tensor, numbers: Tensor, first: int) -> Tensor:
    """`turbulence.add_grain` with three numbers from `first` on."""
    bank = constant(turbulence.grain, images.device)
    start = numbers[:, first + 1 : first + 3, None]
    rows, columns = ((start + ramp(images.shape[-1], images.device)).long() % bank.shape[0]).unbind(1)
    window = bank[rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    return images + numbers[:, first, None, None, None] * (window - 128)


def mean_of_shifted(images: Tensor, offsets: Tensor) -> Tensor:
    """Mean over k of each image moved: its pixel from `offsets` [b, k, 2] whole pixels down and right, the border
    repeated in reverse (`cv2.BORDER_REFLECT`)."""
    size = images.shape[-1]
    place = ramp(size, images.device) + offsets[..., None]
    place = size - 0.5 - (size - (place + 0.5).abs()).abs()
    rows, columns = place.long().unbind(2)  # [b, k, S]
    flat = rows[..., None] * size + columns[:, :, None, :]
    moved = images.flatten(2).gather(2, flat.flatten(1)[:, None].expand(-1, 3, -1))
    return moved.unflatten(2, (offsets.shape[1], size, size)).mean(2)


def gaussian(images: Tensor, sigma: Tensor, reach: int) -> Tensor:
    """Blur by each image's sigma [b], up to `reach` and two sigma pixels away, reflected at the border; 0 does not."""
    size = images.shape[-1]
    away = (
        ramp(size + 2 * reach, images.device) - ramp(size, images.device)[:, None] - reach
    ).abs()  # [S, S + 2 reach]
    sigma = sigma[:, None, None]
    weights = torch.exp(-0.5 * (away / sigma.clamp(min=1e-3)) ** 2) * (away <= (2 * sigma).ceil().clamp(max=reach))
    padded = functional.pad(images, (reach,) * 4, mode="reflect")
    return _mixed(padded, weights / weights.sum(2, keepdim=True))


def through_small(images: Tensor, sides: Tensor, most: int) -> Tensor:
    """Shrink each image to its own side [b] (`most` at most) by area, and enlarge it again linearly."""
    small, pixel = ramp(most, images.device), ramp(images.shape[-1], images.device)
    sides = sides[:, None, None]
    span = images.shape[-1] / sides
    start = small[:, None] * span  # [b, most, 1]
    inside = (torch.minimum(start + span, pixel + 1) - torch.maximum(start, pixel)).clamp(min=0) / span
    place = ((pixel[:, None] + 0.5) / span - 0.5).clamp(min=0).minimum(sides - 1)  # [b, S, 1]
    return _mixed(images, (1 - (place - small).abs()).clamp(min=0) @ inside)


def _mixed(images: Tensor, matrix: Tensor) -> Tensor:
    """[b, 3, s, s]: rows, then columns, of [b, 3, S, S] mixed by each image's [b, s, S]."""
    return matrix[:, None] @ images @ matrix[:, None].mT


@cache
def constant(made: Callable[[], np.ndarray], device: torch.device) -> Tensor:
    """What a function makes, float32, uploaded once."""
    return uploaded(made().astype(np.float32), device)


@cache
def ramp(size: int, device: torch.device) -> Tensor:
    """0, 1, ... size - 1."""
    return torch.arange(size, device=device, dtype=torch.float32)
