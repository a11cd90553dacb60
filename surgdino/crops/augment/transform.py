"""The base of every augmentation: severity is one number, randomness comes from one generator, pixels stay uint8."""

from __future__ import annotations

import os
import random
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

# albumentations asks a server for its newest version when it is imported; a theatre's network must see no such call.
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

from albumentations import ImageOnlyTransform

from surgdino.errors import SurgdinoError


class FrameTransform(ImageOnlyTransform):
    """An albumentations transform that works inside any `albumentations.Compose`.

    The crop pipeline calls `sample` itself: the library's dispatch costs more than many of these effects on a 96-pixel
    crop.

    Class attributes:
        name: the key in configs/augment/*.yaml.
        shows: the effect in a surgeon's words, for the contact sheet.

    Args:
        strength: range in [0, 1] from which each application draws; 1 is the strongest that theatre footage shows.
        p: probability of being applied.
    """

    name: ClassVar[str] = ""
    shows: ClassVar[str] = ""

    def __init__(self, strength: Sequence[float] = (0.0, 1.0), p: float = 0.5) -> None:
        super().__init__(p=number_in(p, f"augment.transforms.{self.name}.p", 0, 1))
        self.strength = _range(strength, f"augment.transforms.{self.name}.strength")

    @abstractmethod
    def effect(self, image: np.ndarray, strength: float, rng: random.Random) -> np.ndarray:
        """uint8 [H, W, 3] RGB in, a new array of the same shape out; everything random is drawn from `rng`."""

    def sample(self, image: np.ndarray, rng: random.Random) -> np.ndarray:
        """The effect at a strength drawn from the range, whatever `p` is."""
        low, high = self.strength
        return self.effect(image, low + (high - low) * rng.random(), rng)

    def get_params(self) -> dict[str, Any]:
        """albumentations draws here what `apply` gets."""
        return {"strength": self.py_random.uniform(*self.strength), "rng": self.py_random}

    def apply(self, img: np.ndarray, strength: float, rng: random.Random, **_: Any) -> np.ndarray:
        """albumentations' name for the effect."""
        return self.effect(img, strength, rng)


def number_in(value: Any, key: str, low: float, high: float) -> float:
    """`value` where it is a number from `low` to `high`; an error that names the setting `key` otherwise."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise SurgdinoError("unusable setting", place=key, expected=f"a number from {low} to {high}", found=repr(value))
    return float(value)


def _range(value: Any, key: str) -> tuple[float, float]:
    if isinstance(value, Sequence) and len(value) == 2:
        low, high = (number_in(v, key, 0, 1) for v in value)
        if low <= high:
            return low, high
    raise SurgdinoError("unusable setting", place=key, expected="[low, high] within 0 and 1", found=repr(value))


def signed(rng: random.Random) -> float:
    """Uniform in [-1, 1)."""
    return 2 * rng.random() - 1
