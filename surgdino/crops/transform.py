"""The shape of every augmentation: one dial called strength, a draw, and pixels in and out as uint8."""

from __future__ import annotations

import os
import random
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

# albumentations asks a server for its newest version when it is imported; a theatre's network must see no such call.
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

from albumentations import ImageOnlyTransform
from albumentations.core.transforms_interface import NoOp  # noqa: F401  (fails early where the release is another)

from surgdino.errors import SurgdinoError


class FrameTransform(ImageOnlyTransform):
    """An albumentations transform whose randomness is one draw and whose severity is one number.

    It works inside any `albumentations.Compose`. The crop pipeline calls `draw` and `apply` itself, because the
    library's own dispatch costs more than many of these operations on a 96-pixel crop.

    Class attributes:
        name: the key in configs/augment/*.yaml and the title on the contact sheet.
        shows: what a surgeon would call it, for the contact sheet.

    Args:
        strength: range in [0, 1] from which each application draws; 1 is the strongest that theatre footage shows.
        p: probability of being applied.
    """

    name: ClassVar[str] = ""
    shows: ClassVar[str] = ""

    def __init__(self, strength: Sequence[float] = (0.0, 1.0), p: float = 0.5) -> None:
        super().__init__(p=p)
        self.strength = _range(self.name, "strength", strength)
        if not 0 <= p <= 1:
            raise SurgdinoError(
                "not a probability", file=f"augment.transforms.{self.name}.p", expected="a number from 0 to 1", found=p
            )

    @abstractmethod
    def draw(self, rng: random.Random, strength: float) -> dict[str, Any]:
        """The parameters of one application at `strength`."""

    @abstractmethod
    def apply(self, img: np.ndarray, **params: Any) -> np.ndarray:
        """uint8 [H, W, 3] RGB in, a new array of the same shape out."""

    def sample(self, image: np.ndarray, rng: random.Random) -> np.ndarray:
        """Draw and apply, whatever `p` says."""
        low, high = self.strength
        return self.apply(image, **self.draw(rng, low + (high - low) * rng.random()))

    def get_params(self) -> dict[str, Any]:
        """albumentations' own hook, so that the transform also works in a `Compose`."""
        return self.draw(self.py_random, self.py_random.uniform(*self.strength))


def _range(name: str, key: str, value: Sequence[float]) -> tuple[float, float]:
    try:
        low, high = (float(v) for v in value)
    except (TypeError, ValueError):
        low, high = 1.0, 0.0
    if not 0 <= low <= high <= 1:
        raise SurgdinoError(
            "not a range", file=f"augment.transforms.{name}.{key}", expected="[low, high] within 0 and 1", found=value
        )
    return low, high


def signed(rng: random.Random) -> float:
    """Uniform on [-1, 1)."""
    return 2.0 * rng.random() - 1.0
