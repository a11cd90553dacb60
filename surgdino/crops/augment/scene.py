"""What happens in the abdomen: blood on the tissue, wet highlights, smoke of the coagulation."""

from __future__ import annotations

import random
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from surgdino.crops.augment import batched, turbulence
from surgdino.crops.augment.transform import FrameTransform

_LEVELS = np.arange(256, dtype=np.float32) / 255.0
# Red minus blue: below 12 it is metal, plastic or a reflection, above 45 it is tissue.
_TISSUE = np.clip((np.arange(256) - 12) * (255 / 33), 0, 255).astype(np.uint8)
_SQUARED = np.rint(255 * _LEVELS**2).astype(np.uint8)
_CUBED = np.rint(255 * _LEVELS**3).astype(np.uint8)


class Blood(FrameTransform):
    """Pools and films of blood: light through them loses green and blue by Beer-Lambert's law and returns dark red.

    The tissue's shading stays visible through thin films; the rims are sharp, as those of a liquid are. Grey things
    (instruments, highlights) stay clean: they lie in front of the pool, or on it.
    """

    name = "blood"
    shows = "Blood film and pooling"
    # Optical density of a full-depth pool for red, green and blue light, and the red that the pool itself returns.
    _DENSITY = np.array([0.85, 3.0, 2.7], np.float32)
    _RETURN = np.array([26.0, 0.0, 2.0], np.float32)

    def draw(self, strength: float, rng: random.Random, height: int, width: int) -> list[float]:
        """How much of the crop it covers, up to half, and the depth."""
        cover = 0.05 + 0.4 * strength * (0.5 + 0.5 * rng.random())
        return [cover, 0.5 + 0.5 * strength, *turbulence.window(height, width, 0.2 + 0.25 * rng.random(), rng)]

    def paint(self, image: np.ndarray, numbers: Sequence[float]) -> np.ndarray:
        """Multiply by the pool's transmittance, add what it returns."""
        cover, depth, *window = numbers
        field = turbulence.cut(turbulence.fields(), window, *image.shape[:2])
        threshold = turbulence.exceeded_by(field, cover)
        redness = cv2.subtract(cv2.extractChannel(image, 0), cv2.extractChannel(image, 2))
        tissue = cv2.LUT(cv2.blur(redness, (3, 3)), _TISSUE)
        depths = cv2.cvtColor(cv2.multiply(field, tissue, scale=1 / 255), cv2.COLOR_GRAY2RGB)
        # The rim rises over a few grey levels (a meniscus), the inside keeps deepening slowly.
        above = np.arange(256, dtype=np.float32) - threshold
        thickness = depth * np.clip(above / 9, 0, 1) * (0.5 + 0.5 * np.clip(above / (256 - threshold), 0, 1))
        passed = np.exp(-thickness[:, None] * self._DENSITY)
        through = cv2.LUT(depths, np.rint(255 * passed).astype(np.uint8)[None])
        returned = cv2.LUT(depths, np.rint(thickness[:, None] * self._RETURN).astype(np.uint8)[None])
        return cv2.add(cv2.multiply(image, through, scale=1 / 255), returned)

    @classmethod
    def paint_batch(cls, images: Tensor, numbers: Tensor) -> Tensor:
        """The same."""
        field = batched.windows(turbulence.fields, numbers, 2, images.shape[-1])
        threshold = batched.exceeded_by(field, numbers[:, :1])[:, 0]
        redness = batched.box_blur((images[:, 0] - images[:, 2]).clamp(min=0), 3)
        tissue = ((redness - 12) * (255 / 33)).clamp(0, 255).floor()
        above = (field * tissue / 255).round() - threshold
        thickness = (
            batched.column(numbers, 1) * (above / 9).clamp(0, 1) * (0.5 + 0.5 * (above / (256 - threshold)).clamp(0, 1))
        )
        density, returned = batched.constant(cls._light, images.device).view(2, 3, 1, 1)
        through = (255 * torch.exp(-thickness[:, None] * density)).round()
        return (images * through / 255).round() + (thickness[:, None] * returned).round()

    @classmethod
    def _light(cls) -> np.ndarray:
        return np.stack([cls._DENSITY, cls._RETURN])


class Highlights(FrameTransform):
    """Specular reflections of the light source on wet tissue: small, white, sharp-edged flecks in clusters."""

    name = "highlights"
    shows = "Specular highlights"

    def draw(self, strength: float, rng: random.Random, height: int, width: int) -> list[float]:
        """The share of the crop, up to 2 %, and where clusters and flecks lie."""
        zoom, stretch = 0.35 + 0.45 * rng.random(), 1.0 + 1.5 * rng.random()
        cluster = turbulence.window(height, width, 0.15, rng)
        return [0.002 + 0.02 * strength, *cluster, *turbulence.window(height, width, zoom, rng, stretch=stretch)]

    def paint(self, image: np.ndarray, numbers: Sequence[float]) -> np.ndarray:
        """White where a lit ridge, a cluster and a fleck agree most, with a narrow bloom."""
        height, width = image.shape[:2]
        luma = cv2.blur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (3, 3))
        wide, radius = self._blurs(height, width)
        ridges = cv2.addWeighted(luma, 5.5, cv2.blur(luma, (wide, wide)), -5.0, 12)
        cluster = turbulence.cut(turbulence.fields(), numbers[1:6], height, width)
        fleck = turbulence.cut(turbulence.flecks(), numbers[6:11], height, width)
        lit = cv2.multiply(ridges, cv2.LUT(cluster, _CUBED), scale=1 / 255)
        score = cv2.multiply(lit, cv2.LUT(fleck, _SQUARED), scale=1 / 255)
        threshold = turbulence.exceeded_by(score, numbers[0])
        ramp = np.clip((np.arange(256) - threshold) * 255 / max(6, threshold / 5), 0, 255).astype(np.uint8)
        mask = cv2.LUT(score, ramp)
        glow = cv2.addWeighted(mask, 1.0, cv2.blur(cv2.blur(mask, (radius, radius)), (radius, radius)), 0.5, 0)
        keep = cv2.cvtColor(cv2.bitwise_not(glow), cv2.COLOR_GRAY2RGB)
        return cv2.bitwise_not(cv2.multiply(cv2.bitwise_not(image), keep, scale=1 / 255))

    @classmethod
    def paint_batch(cls, images: Tensor, numbers: Tensor) -> Tensor:
        """The same."""
        size = images.shape[-1]
        wide, radius = cls._blurs(size, size)
        red, green, blue = images.unbind(1)
        luma = batched.box_blur((0.299 * red + 0.587 * green + 0.114 * blue).round(), 3)
        ridges = batched.levels(5.5 * luma - 5 * batched.box_blur(luma, wide) + 12)
        cluster = batched.windows(turbulence.fields, numbers, 1, size)
        fleck = batched.windows(turbulence.flecks, numbers, 6, size)
        lit = (ridges * (255 * (cluster / 255) ** 3).round() / 255).round()
        score = (lit * (255 * (fleck / 255) ** 2).round() / 255).round()
        threshold = batched.exceeded_by(score, numbers[:, :1])[:, 0]
        mask = ((score - threshold) * 255 / (threshold / 5).clamp(min=6)).clamp(0, 255).floor()
        glow = batched.levels(mask + 0.5 * batched.box_blur(batched.box_blur(mask, radius), radius))
        return 255 - (255 - images) * ((255 - glow) / 255)[:, None]

    @staticmethod
    def _blurs(height: int, width: int) -> tuple[int, int]:
        """Sides of the blurs that tell ridges from their surroundings, and that make a highlight bloom."""
        return max(9, min(height, width) // 10) | 1, max(3, min(height, width) // 40) | 1


class Smoke(FrameTransform):
    """Smoke of coagulation: a grey veil, denser in drifting plumes, lit by the endoscope.

    I = J t + A (1 - t), t = transmission, A = airlight (Koschmieder's law).
    """

    name = "smoke"
    shows = "Surgical smoke"

    def draw(self, strength: float, rng: random.Random, height: int, width: int) -> list[float]:
        """Strength, airlight and where the plumes are."""
        airlight, zoom = 125 + 65 * rng.random(), 0.08 + 0.17 * rng.random()
        return [strength, airlight, *turbulence.window(height, width, zoom, rng)]

    def paint(self, image: np.ndarray, numbers: Sequence[float]) -> np.ndarray:
        """Transmission falls to a third in the plumes at full strength."""
        strength, airlight, *window = numbers
        field = turbulence.cut(turbulence.fields(), window, *image.shape[:2])
        veil = 0.3 * strength + (0.2 + 0.4 * strength) * _LEVELS**1.3
        through = cv2.LUT(field, np.rint(255 * (1 - veil)).astype(np.uint8))
        lit = cv2.LUT(field, np.rint(airlight * veil).astype(np.uint8))
        kept = cv2.multiply(image, cv2.cvtColor(through, cv2.COLOR_GRAY2RGB), scale=1 / 255)
        return cv2.add(kept, cv2.cvtColor(lit, cv2.COLOR_GRAY2RGB))

    @staticmethod
    def paint_batch(images: Tensor, numbers: Tensor) -> Tensor:
        """The same."""
        strength, airlight = batched.column(numbers, 0), batched.column(numbers, 1)
        field = batched.windows(turbulence.fields, numbers, 2, images.shape[-1])
        veil = 0.3 * strength + (0.2 + 0.4 * strength) * (field / 255) ** 1.3
        return batched.blend(images, (255 * (1 - veil)).round(), (airlight * veil).round())
