"""The base of every augmentation: severity is one number, randomness comes from one generator, pixels stay uint8."""

from __future__ import annotations

import os
import random
from abc import abstractmethod
from typing import Annotated, Any, ClassVar

import numpy as np

# albumentations asks a server for its newest version when it is imported; a theatre's network must see no such call.
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

from albumentations import ImageOnlyTransform
from pydantic import AfterValidator

from surgdino.config import Range, Share


def _ascending(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError("not ascending")
    return bounds


Strength = Annotated[Range, AfterValidator(_ascending)]


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

    def __init__(self, strength: Strength = (0.0, 1.0), p: Share = 0.5) -> None:
        super().__init__(p=p)
        self.strength = strength

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


def signed(rng: random.Random) -> float:
    """Uniform in [-1, 1)."""
    return 2 * rng.random() - 1
