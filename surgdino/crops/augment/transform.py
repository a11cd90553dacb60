"""The base of every augmentation: severity is one number, randomness comes from one generator, pixels stay uint8.

What is random is drawn first, as numbers; pixels follow from these alone. So a worker can draw and the GPU can paint.
"""

from __future__ import annotations

import os
import random
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

# albumentations asks a server for its newest version when it is imported; a theatre's network must see no such call.
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

from albumentations import ImageOnlyTransform
from torch import Tensor


class FrameTransform(ImageOnlyTransform):
    """An albumentations transform that works inside any `albumentations.Compose`.

    The crop pipeline draws and paints itself: the library's dispatch costs more than many of these effects on a
    96-pixel crop.

    Class attributes:
        name: the key in configs/augment/*.yaml.
        shows: the effect in a surgeon's words, for the contact sheet.

    Args:
        strength: range in [0, 1] from which each application draws; 1 is the strongest that theatre footage shows.
        p: probability of being applied.
    """

    name: ClassVar[str] = ""
    shows: ClassVar[str] = ""

    def __init__(self, strength: tuple[float, float] = (0.0, 1.0), p: float = 0.5) -> None:
        super().__init__(p=p)
        self.strength = strength

    @abstractmethod
    def draw(self, strength: float, rng: random.Random, height: int, width: int) -> Sequence[float]:
        """All that one application to a picture of that size depends on, always as many numbers."""

    @abstractmethod
    def paint(self, image: np.ndarray, numbers: Sequence[float]) -> np.ndarray:
        """uint8 [H, W, 3] RGB in, a new array of the same shape out."""

    @staticmethod
    def paint_batch(images: Tensor, numbers: Tensor) -> Tensor:
        """`paint` on the device, where a transform has this form; `surgdino.crops.augment.batched` has its parts.

        Args:
            images: float32 [b, 3, H, W] in grey levels of 0 to 255, whole numbers; may be changed.
            numbers: float32 [b, P], a row of `draw` (and maybe zeros behind it) for each.

        Returns:
            [b, 3, H, W], neither rounded nor clipped.
        """
        raise NotImplementedError

    @classmethod
    def has_batch_form(cls) -> bool:
        """Whether it can be applied on the device."""
        return cls.paint_batch is not FrameTransform.paint_batch

    def effect(self, image: np.ndarray, strength: float, rng: random.Random) -> np.ndarray:
        """uint8 [H, W, 3] RGB in, a new array of the same shape out; everything random is drawn from `rng`."""
        return self.paint(image, self.draw(strength, rng, *image.shape[:2]))

    def drawn(self, rng: random.Random, height: int, width: int) -> Drawn:
        """One application at a strength drawn from the range, whatever `p` is."""
        low, high = self.strength
        return Drawn(self, self.draw(low + (high - low) * rng.random(), rng, height, width))

    def sample(self, image: np.ndarray, rng: random.Random) -> np.ndarray:
        """The effect at a strength drawn from the range, whatever `p` is."""
        return self.drawn(rng, *image.shape[:2]).paint(image)

    def get_params(self) -> dict[str, Any]:
        """albumentations draws here what `apply` gets."""
        return {"strength": self.py_random.uniform(*self.strength), "rng": self.py_random}

    def apply(self, img: np.ndarray, strength: float, rng: random.Random, **_: Any) -> np.ndarray:
        """albumentations' name for the effect."""
        return self.effect(img, strength, rng)


@dataclass(frozen=True)
class Drawn:
    """A transform that is to be applied, and the numbers that were drawn for it."""

    transform: FrameTransform
    numbers: Sequence[float]

    def paint(self, image: np.ndarray) -> np.ndarray:
        """uint8 [H, W, 3] in and out."""
        return self.transform.paint(image, self.numbers)


def signed(rng: random.Random) -> float:
    """Uniform in [-1, 1)."""
    return 2 * rng.random() - 1
