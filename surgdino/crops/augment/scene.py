"""What happens in the abdomen: blood on the tissue, wet highlights, smoke of the coagulation."""

from __future__ import annotations

import random

import cv2
import numpy as np

from surgdino.crops.augment import turbulence
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

    def effect(self, image: np.ndarray, strength: float, rng: random.Random) -> np.ndarray:
        """Multiply by the pool's transmittance, add what it returns; it covers up to half of the crop."""
        height, width = image.shape[:2]
        cover = 0.05 + 0.4 * strength * (0.5 + 0.5 * rng.random())
        field = turbulence.cut(turbulence.fields(), height, width, 0.2 + 0.25 * rng.random(), rng)
        threshold = turbulence.exceeded_by(field, cover)
        redness = cv2.subtract(cv2.extractChannel(image, 0), cv2.extractChannel(image, 2))
        tissue = cv2.LUT(cv2.blur(redness, (3, 3)), _TISSUE)
        depths = cv2.cvtColor(cv2.multiply(field, tissue, scale=1 / 255), cv2.COLOR_GRAY2RGB)
        # The rim rises over a few grey levels (a meniscus), the inside keeps deepening slowly.
        above, depth = np.arange(256, dtype=np.float32) - threshold, 0.5 + 0.5 * strength
        thickness = depth * np.clip(above / 9, 0, 1) * (0.5 + 0.5 * np.clip(above / (256 - threshold), 0, 1))
        passed = np.exp(-thickness[:, None] * self._DENSITY)
        through = cv2.LUT(depths, np.rint(255 * passed).astype(np.uint8)[None])
        returned = cv2.LUT(depths, np.rint(thickness[:, None] * self._RETURN).astype(np.uint8)[None])
        return cv2.add(cv2.multiply(image, through, scale=1 / 255), returned)


class Highlights(FrameTransform):
    """Specular reflections of the light source on wet tissue: small, white, sharp-edged flecks in clusters."""

    name = "highlights"
    shows = "Specular highlights"

    def effect(self, image: np.ndarray, strength: float, rng: random.Random) -> np.ndarray:
        """White where a lit ridge, a cluster and a fleck agree most (up to 2 % of the crop), with a narrow bloom."""
        height, width = image.shape[:2]
        zoom, stretch = 0.35 + 0.45 * rng.random(), 1.0 + 1.5 * rng.random()
        luma = cv2.blur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (3, 3))
        wide = max(9, min(height, width) // 10) | 1
        ridges = cv2.addWeighted(luma, 5.5, cv2.blur(luma, (wide, wide)), -5.0, 12)
        cluster = turbulence.cut(turbulence.fields(), height, width, 0.15, rng)
        fleck = turbulence.cut(turbulence.flecks(), height, width, zoom, rng, stretch=stretch)
        lit = cv2.multiply(ridges, cv2.LUT(cluster, _CUBED), scale=1 / 255)
        score = cv2.multiply(lit, cv2.LUT(fleck, _SQUARED), scale=1 / 255)
        threshold = turbulence.exceeded_by(score, 0.002 + 0.02 * strength)
        ramp = np.clip((np.arange(256) - threshold) * 255 / max(6, threshold / 5), 0, 255).astype(np.uint8)
        mask = cv2.LUT(score, ramp)
        radius = max(3, min(height, width) // 40) | 1
        glow = cv2.addWeighted(mask, 1.0, cv2.blur(cv2.blur(mask, (radius, radius)), (radius, radius)), 0.5, 0)
        keep = cv2.cvtColor(cv2.bitwise_not(glow), cv2.COLOR_GRAY2RGB)
        return cv2.bitwise_not(cv2.multiply(cv2.bitwise_not(image), keep, scale=1 / 255))


class Smoke(FrameTransform):
    """Smoke of coagulation: a grey veil, denser in drifting plumes, lit by the endoscope.

    I = J t + A (1 - t), t = transmission, A = airlight (Koschmieder's law).
    """

    name = "smoke"
    shows = "Surgical smoke"

    def effect(self, image: np.ndarray, strength: float, rng: random.Random) -> np.ndarray:
        """Transmission falls to a third in the plumes at full strength."""
        height, width = image.shape[:2]
        airlight, zoom = 125 + 65 * rng.random(), 0.08 + 0.17 * rng.random()
        field = turbulence.cut(turbulence.fields(), height, width, zoom, rng)
        veil = 0.3 * strength + (0.2 + 0.4 * strength) * _LEVELS**1.3
        through = cv2.LUT(field, np.rint(255 * (1 - veil)).astype(np.uint8))
        lit = cv2.LUT(field, np.rint(airlight * veil).astype(np.uint8))
        kept = cv2.multiply(image, cv2.cvtColor(through, cv2.COLOR_GRAY2RGB), scale=1 / 255)
        return cv2.add(kept, cv2.cvtColor(lit, cv2.COLOR_GRAY2RGB))
