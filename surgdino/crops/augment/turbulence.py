"""Fields of fractal noise that smoke, blood, fog and highlights are shaped from.

They are computed once a process and cut at random places and zooms: a fresh field for each crop would cost more than
the rest of the augmentation together.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np

_SIZE = 512
_COUNT = 6


@lru_cache(maxsize=1)
def fields() -> np.ndarray:
    """uint8 [12, 512, 512]: domain-warped fractal noise, equalised: all grey levels are as frequent."""
    rng = np.random.default_rng(20240229)  # fixed: the fields are part of the augmentation's definition
    return _with_transposes([_warped(rng) for _ in range(_COUNT)])


@lru_cache(maxsize=1)
def flecks() -> np.ndarray:
    """uint8 [12, 512, 512]: isolated fine ridges (band-passed noise, a few pixels across), equalised as `fields`."""
    rng = np.random.default_rng(20240302)
    stack = []
    for _ in range(_COUNT):
        noise = rng.standard_normal((_SIZE, _SIZE), np.float32)
        stack.append(_equalised(cv2.GaussianBlur(noise, (0, 0), 2.0) - cv2.GaussianBlur(noise, (0, 0), 5.0)))
    return _with_transposes(stack)


@lru_cache(maxsize=1)
def grain() -> np.ndarray:
    """uint8 [512, 512, 3]: sensor noise, standard deviation 32 about 128, half of its power shared by the channels."""
    rng = np.random.default_rng(20240301)
    shared = rng.standard_normal((_SIZE, _SIZE, 1), np.float32)
    own = rng.standard_normal((_SIZE, _SIZE, 3), np.float32)
    mixed = cv2.GaussianBlur((shared + own) * np.float32(0.5**0.5), (3, 3), 0.55)
    return np.clip(128 + 32 * mixed / mixed.std(), 0, 255).astype(np.uint8)


def window(height: int, width: int, zoom: float, rng: random.Random, *, stretch: float = 1.0) -> list[float]:
    """A random window of a random field for a picture of that size: field, top, left, rows, columns.

    Args:
        zoom: share of the field's side that the window spans; small is coarse.
        stretch: how many times longer the structures are along one axis, horizontal or vertical at random.
    """
    field = rng.randrange(2 * _COUNT)
    rows, columns = (
        max(4, min(_SIZE, round(_SIZE * zoom * length))) for length in _stretched(height, width, stretch, rng)
    )
    return [field, rng.randrange(_SIZE - rows + 1), rng.randrange(_SIZE - columns + 1), rows, columns]


def cut(bank: np.ndarray, window: Sequence[float], height: int, width: int) -> np.ndarray:
    """uint8 [height, width]: a `window` of `fields()` or `flecks()`, resized."""
    field, top, left, rows, columns = map(int, window)
    return cv2.resize(
        bank[field, top : top + rows, left : left + columns], (width, height), interpolation=cv2.INTER_LINEAR
    )


def exceeded_by(field: np.ndarray, share: float) -> int:
    """The grey level that `share` of a uint8 field's pixels exceed."""
    counts = cv2.calcHist([field], [0], None, [256], [0, 256]).ravel()
    return int(np.searchsorted(np.cumsum(counts), (1 - share) * field.size))


def grain_window(deviation: float, rng: random.Random, height: int, width: int) -> list[float]:
    """Sensor noise of standard deviation `deviation` (of 1): factor, and top and left of a window of tiled `grain`."""
    rows, columns = (-(-side // _SIZE) * _SIZE for side in (height, width))
    return [deviation * 255 / 32, rng.randrange(rows - height + 1), rng.randrange(columns - width + 1)]


def add_grain(image: np.ndarray, numbers: Sequence[float]) -> np.ndarray:
    """Add the noise of a `grain_window` to uint8 [H, W, 3]."""
    height, width = image.shape[:2]
    bank, scale, (top, left) = grain(), numbers[0], map(int, numbers[1:])
    if height > _SIZE or width > _SIZE:
        bank = np.tile(bank, (-(-height // _SIZE), -(-width // _SIZE), 1))
    return cv2.addWeighted(image, 1.0, bank[top : top + height, left : left + width], scale, -128 * scale)


def _stretched(height: int, width: int, stretch: float, rng: random.Random) -> tuple[float, float]:
    longest = max(height, width)
    rows, columns = height / longest, width / longest
    return (rows, columns / stretch) if rng.random() < 0.5 else (rows / stretch, columns)


def _warped(rng: np.random.Generator) -> np.ndarray:
    plain, shift_x, shift_y = (_fractal(rng, start) for start in (4, 3, 3))
    y, x = np.mgrid[0:_SIZE, 0:_SIZE].astype(np.float32)
    warped = cv2.remap(plain, x + 60 * shift_x, y + 60 * shift_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return _equalised(warped)


def _with_transposes(stack: list[np.ndarray]) -> np.ndarray:
    return np.stack([*stack, *(field.T for field in stack)])


def _equalised(field: np.ndarray) -> np.ndarray:
    edges = np.quantile(field[::2, ::2], np.arange(1, 256) / 256)
    return np.searchsorted(edges, field).astype(np.uint8)


def _fractal(rng: np.random.Generator, start: int, octaves: int = 6, gain: float = 0.55) -> np.ndarray:
    total = np.zeros((_SIZE, _SIZE), np.float32)
    for octave in range(octaves):
        cells = start * 2**octave + 3
        lattice = rng.standard_normal((cells, cells), np.float32)
        total += gain**octave * cv2.resize(lattice, (_SIZE, _SIZE), interpolation=cv2.INTER_CUBIC)
    return total / total.std()
