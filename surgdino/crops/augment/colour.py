"""Colour: what differs from tower to tower, and the natural-image colour augmentations of DINOv2.

Everything here except gamma and solarisation is affine in RGB, so one 3 x 4 matrix and one pass over the pixels does
what torchvision does in four.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
import torch
from torch import Tensor

from surgdino.crops.augment import batched
from surgdino.crops.augment.transform import FrameTransform, signed

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
_GREY = np.tile(_LUMA, (3, 1))
_CHROMA = np.eye(3, dtype=np.float32) - _GREY
# Rotation of the chroma plane of YIQ by angle a, in RGB: _GREY + cos(a) _CHROMA + sin(a) _TWIST.
_TWIST = np.array([[0.168, 0.330, -0.497], [-0.328, 0.035, 0.292], [1.250, -1.050, -0.203]], np.float32)


class TowerDrift(FrameTransform):
    """The colour of another camera, light source or white balance: gains, tint, saturation, exposure, contrast, gamma.

    Hue turns by at most four degrees, because it distinguishes bile, fat, liver and blood.
    """

    name = "tower_drift"
    shows = "Tower colour, white balance"

    def draw(self, strength: float, rng: random.Random, height: int, width: int) -> list[float]:
        """At full strength: temperature 16 % (red to blue), tint 7 %, saturation 35 %, contrast 22 %, gamma 25 %."""
        temperature = 0.16 * strength * (0.6 + 0.4 * rng.random()) * (1 if rng.random() < 0.5 else -1)
        tint = 0.07 * strength * signed(rng)
        exposure = 1 + 0.18 * strength * signed(rng)
        gains = (exposure * (1 + temperature), exposure * (1 + tint), exposure * (1 - temperature))
        angle, saturation = 0.07 * strength * signed(rng), 1 + 0.35 * strength * signed(rng)
        contrast = 1 + 0.22 * strength * signed(rng)
        # Towers differ in gamma, but the look-up costs as much as all the rest: every other application has one.
        gamma = round(64 * 1.25 ** (strength * signed(rng))) if rng.random() < 0.5 else 64
        return [*gains, angle, saturation, contrast, gamma]

    def paint(self, image: np.ndarray, numbers: Sequence[float]) -> np.ndarray:
        """One matrix, maybe one look-up."""
        red, green, blue, angle, saturation, contrast, gamma = numbers
        matrix = contrast * hue_and_saturation(angle, saturation) * np.array((red, green, blue), np.float32)
        drifted = cv2.transform(image, affine(matrix, 96 * (1 - contrast)))
        return drifted if gamma == 64 else cv2.LUT(drifted, _gamma(int(gamma)))

    @staticmethod
    def paint_batch(images: Tensor, numbers: Tensor) -> Tensor:
        """The same; a gamma of one changes nothing."""
        angle, saturation, contrast, gamma = numbers[:, 3:7].unbind(1)
        matrix = contrast[:, None, None] * turned(angle, saturation) * numbers[:, None, :3]
        drifted = batched.levels(batched.affine(images, matrix, 96 * (1 - contrast)))
        return 255 * (drifted / 255) ** (gamma / 64)[:, None, None, None]


class ColourJitter(FrameTransform):
    """DINOv2's colour jitter: brightness, contrast, saturation and hue, composed into one matrix.

    Hue turns in the chroma plane of YIQ instead of HSV, and nothing is clipped in between; ranges are torchvision's.
    """

    name = "colour_jitter"
    shows = "Colour jitter (natural images)"

    def __init__(
        self,
        brightness: float = 0.4,
        contrast: float = 0.4,
        saturation: float = 0.2,
        hue: float = 0.1,
        strength: tuple[float, float] = (1.0, 1.0),
        p: float = 0.8,
    ) -> None:
        """Half-widths of the ranges about 1 (hue: about 0, in turns)."""
        super().__init__(strength, p)
        self.brightness, self.contrast, self.saturation, self.hue = brightness, contrast, saturation, hue

    def draw(self, strength: float, rng: random.Random, height: int, width: int) -> list[float]:
        """Each factor uniform in its range, scaled by strength."""
        brightness, contrast, saturation = (
            1 + strength * width * signed(rng) for width in (self.brightness, self.contrast, self.saturation)
        )
        angle = 2 * math.pi * strength * self.hue * signed(rng)
        return [brightness, contrast, angle, saturation]

    def paint(self, image: np.ndarray, numbers: Sequence[float]) -> np.ndarray:
        """One matrix; contrast turns about the mean grey of the image."""
        brightness, contrast, angle, saturation = numbers
        matrix = brightness * hue_and_saturation(angle, saturation)
        pivot = float((_LUMA @ matrix) @ np.array(cv2.mean(image)[:3], np.float32))
        return cv2.transform(image, affine(contrast * matrix, pivot * (1 - contrast)))

    @staticmethod
    def paint_batch(images: Tensor, numbers: Tensor) -> Tensor:
        """The same."""
        brightness, contrast, angle, saturation = numbers[:, :4].unbind(1)
        coloured = batched.affine(images, brightness[:, None, None] * turned(angle, saturation))
        contrast = contrast[:, None, None, None]
        red, green, blue = coloured.mean((2, 3), keepdim=True).split(1, dim=1)
        return contrast * coloured + (1 - contrast) * (0.299 * red + 0.587 * green + 0.114 * blue)


class Greyscale(FrameTransform):
    """Luma only (strength 1), or a mix with it. Rare in theatre, where colour carries meaning."""

    name = "greyscale"
    shows = "Greyscale"

    def draw(self, strength: float, rng: random.Random, height: int, width: int) -> list[float]:
        """What is left of the colour."""
        return [1 - strength]

    def paint(self, image: np.ndarray, numbers: Sequence[float]) -> np.ndarray:
        """One matrix."""
        return cv2.transform(image, affine(hue_and_saturation(0.0, numbers[0]), 0.0))

    @staticmethod
    def paint_batch(images: Tensor, numbers: Tensor) -> Tensor:
        """The same."""
        return batched.affine(images, turned(torch.zeros_like(numbers[:, 0]), numbers[:, 0]))


class Solarise(FrameTransform):
    """Invert what is brighter than a threshold; strength 1 is that of DINO's second global view, 128."""

    name = "solarise"
    shows = "Solarise (DINO's second view)"

    def draw(self, strength: float, rng: random.Random, height: int, width: int) -> list[float]:
        """The threshold."""
        return [round(255 - 127 * strength)]

    def paint(self, image: np.ndarray, numbers: Sequence[float]) -> np.ndarray:
        """One look-up."""
        return cv2.LUT(image, _solarise(int(numbers[0])))

    @staticmethod
    def paint_batch(images: Tensor, numbers: Tensor) -> Tensor:
        """The same."""
        return torch.where(images >= numbers[:, 0, None, None, None], 255 - images, images)


def hue_and_saturation(angle: float, saturation: float) -> np.ndarray:
    """float32 [3, 3]: turn chroma by `angle` radians and scale it, luma kept (the linear form of an HSV adjustment)."""
    return _GREY + (saturation * math.cos(angle)) * _CHROMA + (saturation * math.sin(angle)) * _TWIST


def affine(matrix: np.ndarray, offset: float) -> np.ndarray:
    """float32 [3, 4] for cv2.transform: `matrix` and one offset for the three channels."""
    out = np.empty((3, 4), np.float32)
    out[:, :3] = matrix
    out[:, 3] = offset
    return out


def turned(angle: Tensor, saturation: Tensor) -> Tensor:
    """[b, 3, 3]: `hue_and_saturation` of each image, [b] both."""
    grey, chroma, twist = batched.constant(_colour_plane, angle.device)
    angle, saturation = angle[:, None, None], saturation[:, None, None]
    return grey + saturation * torch.cos(angle) * chroma + saturation * torch.sin(angle) * twist


def _colour_plane() -> np.ndarray:
    return np.stack([_GREY, _CHROMA, _TWIST])


@lru_cache(maxsize=256)
def _gamma(sixty_fourths: int) -> np.ndarray:
    return np.rint(255 * (np.arange(256) / 255.0) ** (sixty_fourths / 64)).astype(np.uint8)


@lru_cache(maxsize=256)
def _solarise(threshold: int) -> np.ndarray:
    levels = np.arange(256)
    return np.where(levels >= threshold, 255 - levels, levels).astype(np.uint8)
