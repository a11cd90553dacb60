"""The camera: light, lens, sensor and recorder."""

from __future__ import annotations

import math
import random
from functools import lru_cache

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

    def effect(self, image: np.ndarray, strength: float, rng: random.Random) -> np.ndarray:
        """Down to three tenths of the light at full strength."""
        light = 1 - (0.2 + 0.5 * strength) * (0.9 + 0.1 * rng.random())
        warm = 1 + 0.06 * rng.random()
        gains = np.array([light * warm, light, light / warm], np.float32)
        matrix = affine(hue_and_saturation(0.0, 1 - 0.2 * strength) * gains, -4.0 * strength)
        return turbulence.add_grain(cv2.transform(image, matrix), 0.006 + 0.022 * strength, rng)


class Vignette(FrameTransform):
    """The light falls off towards the rim (cos^4 law), its centre shifted as when the cable or the scope is turned."""

    name = "vignette"
    shows = "Vignette, off-centre light"

    def effect(self, image: np.ndarray, strength: float, rng: random.Random) -> np.ndarray:
        """Multiply by a window of one precomputed fall-off; at full strength the far corner keeps a seventh."""
        height, width = image.shape[:2]
        fall = 0.3 + 0.7 * strength
        x, y = 0.5 + 0.25 * signed(rng), 0.5 + 0.25 * signed(rng)
        left, top = (round((1 - c) * _FALL_SIZE * 0.5) for c in (x, y))
        half = _FALL_SIZE // 2
        window = _cos_fourth()[top : top + half, left : left + half]
        light = cv2.resize(window, (width, height), interpolation=cv2.INTER_LINEAR)
        kept = np.rint(255 * (1 - fall * (1 - _LEVELS))).astype(np.uint8)
        return cv2.multiply(image, cv2.cvtColor(cv2.LUT(light, kept), cv2.COLOR_GRAY2RGB), scale=1 / 255)


class LensFog(FrameTransform):
    """Condensation on the lens: patches of milky blur, bright parts bleeding into their surroundings."""

    name = "lens_fog"
    shows = "Fogged lens"

    def effect(self, image: np.ndarray, strength: float, rng: random.Random) -> np.ndarray:
        """Blend towards a small, lifted copy of the image, enlarged again: a wide blur for the price of two resizes."""
        height, width = image.shape[:2]
        cover, veil, shrink = 0.3 + 0.6 * strength, 0.12 + 0.3 * strength, 8 + 10 * strength
        zoom = 0.05 + 0.08 * rng.random()
        small_size = max(3, round(width / shrink)), max(3, round(height / shrink))
        small = cv2.resize(image, small_size, interpolation=cv2.INTER_AREA)
        milk = cv2.addWeighted(small, 1 - veil, np.full_like(small, 185), veil, 12)
        foggy = cv2.resize(milk, (width, height), interpolation=cv2.INTER_LINEAR)
        field = turbulence.cut(turbulence.fields(), height, width, zoom, rng)
        # A small window of the field spans few grey levels: the ramp runs between two of its own quantiles.
        thin, thick = turbulence.exceeded_by(field, cover), turbulence.exceeded_by(field, cover / 3)
        share = np.clip((_GREYS - thin) / max(6, thick - thin), 0, 1) * (0.5 + 0.4 * cover)
        fog = cv2.cvtColor(cv2.LUT(field, np.rint(255 * share).astype(np.uint8)), cv2.COLOR_GRAY2RGB)
        clear = cv2.multiply(image, cv2.bitwise_not(fog), scale=1 / 255)
        return cv2.add(clear, cv2.multiply(foggy, fog, scale=1 / 255))


class Defocus(FrameTransform):
    """Out of focus: a Gaussian blur of sigma 0.1 to 2 pixels, as DINOv2's."""

    name = "defocus"
    shows = "Defocus"

    def effect(self, image: np.ndarray, strength: float, rng: random.Random) -> np.ndarray:
        """Two passes with a float kernel take half the time of cv2.GaussianBlur on three channels of uint8."""
        sigma = 0.1 + 1.9 * strength
        if sigma < 0.3:
            return image  # in 8 bits the kernel would be a delta
        kernel = _gaussian(round(sigma * 32))
        return cv2.sepFilter2D(image, -1, kernel, kernel)


class MotionBlur(FrameTransform):
    """The camera moved while the shutter was open: an even blur along a line."""

    name = "motion_blur"
    shows = "Motion blur"
    _HALVINGS = 4

    def effect(self, image: np.ndarray, strength: float, rng: random.Random) -> np.ndarray:
        """Average the image with itself shifted by half the length, a quarter, ...: 16 samples in four passes.

        The length is up to 7 % of the crop's side, in any direction.
        """
        height, width = image.shape[:2]
        angle = math.pi * rng.random()
        reach = max(2.0, (0.01 + 0.06 * strength) * max(height, width))
        margin = math.ceil(reach / 2) + self._HALVINGS
        blurred = cv2.copyMakeBorder(image, margin, margin, margin, margin, cv2.BORDER_REFLECT)
        for k in range(1, self._HALVINGS + 1):
            step = reach / 2**k
            blurred = _average_shifted(blurred, round(step * math.cos(angle)), round(step * math.sin(angle)))
        top, left = (blurred.shape[0] - height) // 2, (blurred.shape[1] - width) // 2
        return blurred[top : top + height, left : left + width]


class SensorNoise(FrameTransform):
    """Grain of the sensor, partly coloured, as a camera at high gain shows it."""

    name = "sensor_noise"
    shows = "Sensor noise"

    def effect(self, image: np.ndarray, strength: float, rng: random.Random) -> np.ndarray:
        """Standard deviation 2 to 11 grey levels."""
        return turbulence.add_grain(image, (2 + 9 * strength) / 255, rng)


class Compression(FrameTransform):
    """Blocks and ringing of a recorder that saved disk space."""

    name = "compression"
    shows = "Compression artefacts"

    def effect(self, image: np.ndarray, strength: float, rng: random.Random) -> np.ndarray:
        """JPEG quality from 60 down to 12."""
        settings = [cv2.IMWRITE_JPEG_QUALITY, round(60 - 48 * strength)]
        packed = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), settings)[1]
        return cv2.cvtColor(np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR)), cv2.COLOR_BGR2RGB)


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
    shifted = image[shifted_y : shifted_y + height, shifted_x : shifted_x + width]
    return cv2.addWeighted(image[y : y + height, x : x + width], 0.5, shifted, 0.5, 0)
