"""What the device forms of the augmentations are made of: OpenCV's operations, each image of a batch by its numbers.

All shapes depend on the sizes of crops alone, and nothing is read back: the host never waits for the device. Symbols: b
images of H x W pixels; grey levels are float32, 0 to 255, and `levels` rounds to whole ones where OpenCV would.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from surgdino.crops.augment import turbulence


def column(numbers: Tensor, place: int) -> Tensor:
    """[b, 1, 1]: one of the numbers of every image, to compute with [b, H, W]."""
    return numbers[:, place, None, None]


def levels(values: Tensor) -> Tensor:
    """The nearest grey levels."""
    return values.round().clamp(0, 255)


def blend(images: Tensor, kept: Tensor, added: Tensor) -> Tensor:
    """[b, 3, H, W] times `kept` [b, H, W] plus `added` [b, H, W], both in grey levels."""
    return levels(images * (kept / 255)[:, None]) + added[:, None]


def affine(images: Tensor, matrix: Tensor, offset: Tensor | None = None) -> Tensor:
    """Each image's matrix [b, 3, 3] on its colours, plus one offset [b] for the three channels."""
    coloured = torch.bmm(matrix, images.flatten(2)).view_as(images)
    return coloured if offset is None else coloured + offset[:, None, None, None]


def luma(images: Tensor) -> Tensor:
    """[b, H, W] in whole levels (ITU-R BT.601)."""
    red, green, blue = images.unbind(1)
    return levels(0.299 * red + 0.587 * green + 0.114 * blue)


def box_blur(planes: Tensor, side: int) -> Tensor:
    """[b, H, W]: mean of `side` x `side` pixels (odd), in whole levels, reflected at the border as `cv2.blur` does."""
    half = side // 2
    padded = functional.pad(planes[:, None], (half, half, half, half), mode="reflect")
    rows = functional.avg_pool2d(padded, (side, 1), stride=1)
    return levels(functional.avg_pool2d(rows, (1, side), stride=1)[:, 0])


def exceeded_by(planes: Tensor, share: Tensor) -> Tensor:
    """[b, 1, 1]: the grey level that `share` [b, 1, 1] of each plane's pixels exceed; see `turbulence.exceeded_by`."""
    flat = planes.flatten(1)
    counts = flat.new_zeros(len(flat), 256).scatter_add_(1, flat.long(), torch.ones_like(flat))
    below = counts.cumsum(1) < (1 - share.flatten(1)) * flat.shape[1]
    return below.sum(1).to(planes.dtype)[:, None, None]


def windows(bank: Callable[[], np.ndarray], numbers: Tensor, first: int, height: int, width: int) -> Tensor:
    """[b, H, W] in whole levels: `turbulence.cut` of each image's window, five numbers from `first` on."""
    fields = on_device(bank, numbers.device)
    field, top, left, rows, columns = numbers[:, first : first + 5].unbind(1)
    y, below, down = _between(top, rows, height)
    x, beside, right = _between(left, columns, width)
    field, down, right = field.long()[:, None, None], down[:, :, None], right[:, None, :]

    def at(row: Tensor, place: Tensor) -> Tensor:
        return fields[field, row[:, :, None], place[:, None, :]].float()

    upper = at(y, x) * (1 - right) + at(y, beside) * right
    lower = at(below, x) * (1 - right) + at(below, beside) * right
    return levels(upper * (1 - down) + lower * down)


def _between(start: Tensor, length: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of `size` pixels spread over `length` ones [b] from `start` on: the two about each [b, size], and the second's
    weight."""
    centres = torch.arange(size, device=start.device) + 0.5
    place = (centres * (length / size)[:, None] - 0.5).clamp(min=0).minimum(length[:, None] - 1)
    first = place.floor()
    after = (first + 1).minimum(length[:, None] - 1)
    return (start[:, None] + first).long(), (start[:, None] + after).long(), place - first


def add_grain(images: Tensor, numbers: Tensor, first: int) -> Tensor:
    """`turbulence.add_grain` with three numbers from `first` on."""
    bank, (height, width) = on_device(turbulence.grain, images.device), images.shape[-2:]
    rows, columns = (
        (start.long()[:, None] + torch.arange(size, device=images.device)) % bank.shape[0]
        for start, size in ((numbers[:, first + 1], height), (numbers[:, first + 2], width))
    )
    window = bank[rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    return images + numbers[:, first, None, None, None] * (window.float() - 128)


def along(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Mix the rows of each image by its [h, H], then the columns by its [w, W]: [b, 3, h, w]."""
    return rows[:, None] @ images @ columns[:, None].mT


def shifted(images: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Each pixel from `down` and `right` [b] whole pixels further, the border repeated in reverse
    (`cv2.BORDER_REFLECT`)."""

    def places(size: int, shift: Tensor) -> Tensor:
        place = torch.arange(size, device=images.device) + shift.long()[:, None]
        place = torch.where(place < 0, -1 - place, place)
        return torch.where(place >= size, 2 * size - 1 - place, place)

    height, width = images.shape[-2:]
    rows, columns = places(height, down)[:, None, :, None], places(width, right)[:, None, None, :]
    flat = (rows * width + columns).expand(-1, 3, -1, -1).flatten(2)
    return images.flatten(2).gather(2, flat).view_as(images)


def gaussian(images: Tensor, sigma: Tensor, reach: int) -> Tensor:
    """Blur by each image's sigma [b], up to `reach` and two sigma pixels away, reflected at the border; 0 does not."""
    radius = (2 * sigma).ceil().clamp(max=reach)[:, None]
    away = torch.arange(-reach, reach + 1, device=images.device, dtype=torch.float32)[None]
    weights = torch.where(away.abs() <= radius, torch.exp(-0.5 * (away / sigma[:, None].clamp(min=1e-3)) ** 2), 0.0)
    weights = weights / weights.sum(1, keepdim=True)
    padded = functional.pad(images, (reach,) * 4, mode="reflect")

    def band(size: int) -> Tensor:
        offset = (
            torch.arange(size + 2 * reach, device=images.device) - torch.arange(size, device=images.device)[:, None]
        )
        inside = (offset >= 0) & (offset <= 2 * reach)
        return torch.where(inside, weights[:, offset.clamp(0, 2 * reach)], 0.0)

    return along(padded, band(images.shape[-2]), band(images.shape[-1]))


def through_small(images: Tensor, heights: Tensor, widths: Tensor, most: int) -> Tensor:
    """Shrink each image to its own `heights` x `widths` [b] (`most` at most) by area, and enlarge it again linearly."""

    def shrunk_and_enlarged(size: int, counts: Tensor) -> Tensor:
        counts = counts[:, None, None]
        small = torch.arange(most, device=images.device, dtype=torch.float32)
        pixel = torch.arange(size, device=images.device, dtype=torch.float32)
        span = size / counts
        start = small[:, None] * span  # [b, most, 1]
        inside = (torch.minimum(start + span, pixel + 1) - torch.maximum(start, pixel)).clamp(min=0) / span
        place = ((pixel[:, None] + 0.5) / span - 0.5).clamp(min=0).minimum(counts - 1)  # [b, size, 1]
        return (1 - (place - small).abs()).clamp(min=0) @ inside

    return along(images, shrunk_and_enlarged(images.shape[-2], heights), shrunk_and_enlarged(images.shape[-1], widths))


@cache
def on_device(bank: Callable[[], np.ndarray], device: torch.device) -> Tensor:
    """A bank of noise, uploaded once."""
    made = torch.from_numpy(bank())
    return (made.pin_memory() if device.type == "cuda" else made).to(device, non_blocking=True)
