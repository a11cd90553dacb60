"""The light and the lens: low light, vignette, fog, defocus, motion."""

from __future__ import annotations

import math
import random
from functools import lru_cache
from typing import Any

import cv2
import numpy as np

from surgdino.crops.augment import turbulence
from surgdino.crops.augment.colour import affine, hue_and_saturation
from surgdino.crops.augment.transform import FrameTransform, signed

_GREYS = np.arange(256, dtype=np.float32)
_LEVELS = _GREYS / 255.0


class LowLight(FrameTransform):
    """Too little light: darker, shadows crushed, a little redder and paler, and the sensor's gain shows as grain."""

    name = "low_light"
    shows = "Low light"

    def draw(self, rng: random.Random, strength: float) -> dict[str, Any]:
        """Down to three tenths of the light at full strength."""
        light = 1 - (0.2 + 0.5 * strength) * (0.9 + 0.1 * rng.random())
        warm = 1 + 0.06 * rng.random()
        gains = np.array([light * warm, light, light / warm], np.float32)
        return {
            "matrix": affine(hue_and_saturation(0.0, 1 - 0.2 * strength) * gains, -4.0 * strength),
            "grain": 0.006 + 0.022 * strength,
            "rng": rng,
        }

    def apply(self, img: np.ndarray, matrix: np.ndarray, grain: float, rng: random.Random, **_: Any) -> np.ndarray:
        """Darken by one matrix, then add grain."""
        return turbulence.add_grain(cv2.transform(img, matrix), grain, rng)


class Vignette(FrameTransform):
    """The light falls off towards the rim (cos^4 law), its centre shifted as when the cable or the scope is turned."""

    name = "vignette"
    shows = "Vignette, off-centre light"

    def draw(self, rng: random.Random, strength: float) -> dict[str, Any]:
        """At full strength the far corner keeps a seventh of the light."""
        return {
            "fall": 0.3 + 0.7 * strength,
            "centre": (0.5 + 0.25 * signed(rng), 0.5 + 0.25 * signed(rng)),
        }

    def apply(self, img: np.ndarray, fall: float, centre: tuple[float, float], **_: Any) -> np.ndarray:
        """Cut a window of one precomputed fall-off, look it up for the strength, multiply."""
        height, width = img.shape[:2]
        left, top = (round((1 - c) * _FALL_SIZE * 0.5) for c in centre)
        half = _FALL_SIZE // 2
        window = _cos_fourth()[top : top + half, left : left + half]
        light = cv2.resize(window, (width, height), interpolation=cv2.INTER_LINEAR)
        kept = np.rint(255 * (1 - fall * (1 - _LEVELS))).astype(np.uint8)
        return cv2.multiply(img, cv2.cvtColor(cv2.LUT(light, kept), cv2.COLOR_GRAY2RGB), scale=1 / 255)


class LensFog(FrameTransform):
    """Condensation on the lens: patches of milky blur, bright parts bleeding into their surroundings."""

    name = "lens_fog"
    shows = "Fogged lens"

    def draw(self, rng: random.Random, strength: float) -> dict[str, Any]:
        """From a breath in one corner to a lens that has to come out and be wiped."""
        return {
            "cover": 0.3 + 0.6 * strength,
            "veil": 0.12 + 0.3 * strength,
            "shrink": 8 + 10 * strength,
            "zoom": 0.05 + 0.08 * rng.random(),
            "rng": rng,
        }

    def apply(
        self,
        img: np.ndarray,
        cover: float,
        veil: float,
        shrink: float,
        zoom: float,
        rng: random.Random,
        **_: Any,
    ) -> np.ndarray:
        """Blend towards a small, lifted copy of the image blown up again: a wide blur for the price of two resizes."""
        height, width = img.shape[:2]
        small = cv2.resize(
            img, (max(3, round(width / shrink)), max(3, round(height / shrink))), interpolation=cv2.INTER_AREA
        )
        milk = cv2.addWeighted(small, 1 - veil, np.full_like(small, 185), veil, 12)
        foggy = cv2.resize(milk, (width, height), interpolation=cv2.INTER_LINEAR)
        field = turbulence.cut(turbulence.fields(), height, width, zoom, rng)
        # A small window of the field spans few grey levels: the ramp runs between two of its own quantiles.
        thin, thick = turbulence.exceeded_by(field, cover), turbulence.exceeded_by(field, cover / 3)
        share = np.clip((_GREYS - thin) / max(6, thick - thin), 0, 1) * (0.5 + 0.4 * cover)
        fog = cv2.cvtColor(cv2.LUT(field, np.rint(255 * share).astype(np.uint8)), cv2.COLOR_GRAY2RGB)
        clear = cv2.multiply(img, cv2.bitwise_not(fog), scale=1 / 255)
        return cv2.add(clear, cv2.multiply(foggy, fog, scale=1 / 255))


class Defocus(FrameTransform):
    """Out of focus: a Gaussian blur whose sigma is DINOv2's for a 224-pixel crop, and in proportion for others."""

    name = "defocus"
    shows = "Defocus"
    _SIGMA = (0.1, 2.0)

    def draw(self, rng: random.Random, strength: float) -> dict[str, Any]:
        """Sigma from 0.1 to 2 pixels."""
        low, high = self._SIGMA
        return {"sigma": low + (high - low) * strength}

    def apply(self, img: np.ndarray, sigma: float, **_: Any) -> np.ndarray:
        """Two passes with a float kernel: measured at half the time of cv2.GaussianBlur on three channels of uint8."""
        if sigma < 0.3:
            return img  # the kernel would be a delta in 8 bits
        kernel = _gaussian(round(sigma * 32))
        return cv2.sepFilter2D(img, -1, kernel, kernel)


class MotionBlur(FrameTransform):
    """The camera was swept while the shutter was open: an even blur along a line."""

    name = "motion_blur"
    shows = "Motion blur"
    _HALVINGS = 4

    def draw(self, rng: random.Random, strength: float) -> dict[str, Any]:
        """Up to seven per cent of the crop's side, in any direction."""
        return {"length": 0.01 + 0.06 * strength, "angle": math.pi * rng.random()}

    def apply(self, img: np.ndarray, length: float, angle: float, **_: Any) -> np.ndarray:
        """Average the image with its shifted self, by half the length, a quarter, ...: 16 samples in four passes."""
        height, width = img.shape[:2]
        reach = max(2.0, length * max(height, width))
        margin = math.ceil(reach / 2) + self._HALVINGS
        blurred = cv2.copyMakeBorder(img, margin, margin, margin, margin, cv2.BORDER_REFLECT)
        for k in range(1, self._HALVINGS + 1):
            blurred = _average_shifted(
                blurred, round(reach / 2**k * math.cos(angle)), round(reach / 2**k * math.sin(angle))
            )
        top, left = (blurred.shape[0] - height) // 2, (blurred.shape[1] - width) // 2
        return blurred[top : top + height, left : left + width]


_FALL_SIZE = 512


@lru_cache(maxsize=1)
def _cos_fourth() -> np.ndarray:
    """uint8 [512, 512]: cos^4 of the angle off the axis, 255 in the middle; its corner is 68 degrees off."""
    y, x = (np.mgrid[0:_FALL_SIZE, 0:_FALL_SIZE] + 0.5) / (_FALL_SIZE / 2) - 1
    squared = (x * x + y * y) * 3
    return np.rint(255 / (1 + squared) ** 2).astype(np.uint8)


@lru_cache(maxsize=128)
def _gaussian(thirty_seconds: int) -> np.ndarray:
    """The kernel reaches two sigma and no further than DINOv2's nine pixels."""
    sigma = thirty_seconds / 32
    return cv2.getGaussianKernel(2 * min(4, math.ceil(2 * sigma)) + 1, sigma, cv2.CV_32F)


def _average_shifted(image: np.ndarray, dx: int, dy: int) -> np.ndarray:
    """Mean of the image and itself shifted by (dx, dy), where the two overlap."""
    if dx == 0 and dy == 0:
        return image
    height, width = image.shape[0] - abs(dy), image.shape[1] - abs(dx)
    y, x, shifted_y, shifted_x = max(0, -dy), max(0, -dx), max(0, dy), max(0, dx)
    return cv2.addWeighted(
        image[y : y + height, x : x + width],
        0.5,
        image[shifted_y : shifted_y + height, shifted_x : shifted_x + width],
        0.5,
        0,
    )
