"""The camera: light, lens, sensor and recorder."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from functools import lru_cache
from itertools import product

import cv2
import numpy as np
import torch
from torch import Tensor

from surgdino.crops.augment import batched, turbulence
from surgdino.crops.augment.colour import affine, hue_and_saturation, turned
from surgdino.crops.augment.transform import FrameTransform, signed

_GREYS = np.arange(256, dtype=np.float32)
_LEVELS = _GREYS / 255.0


class LowLight(FrameTransform):
    """Too little light: darker, shadows crushed, a little redder and paler, and the sensor's gain shows as grain."""

    name = "low_light"
    shows = "Low light"

    def draw(self, strength: float, rng: random.Random, height: int, width: int) -> list[float]:
        """Down to three tenths of the light at full strength."""
        light = 1 - (0.2 + 0.5 * strength) * (0.9 + 0.1 * rng.random())
        warm = 1 + 0.06 * rng.random()
        grain = turbulence.grain_window(0.006 + 0.022 * strength, rng, height, width)
        return [light * warm, light, light / warm, strength, *grain]

    def paint(self, image: np.ndarray, numbers: Sequence[float]) -> np.ndarray:
        """One matrix, and grain."""
        strength = numbers[3]
        matrix = hue_and_saturation(0.0, 1 - 0.2 * strength) * np.array(numbers[:3], np.float32)
        return turbulence.add_grain(cv2.transform(image, affine(matrix, -4.0 * strength)), numbers[4:])

    @staticmethod
    def paint_batch(images: Tensor, numbers: Tensor) -> Tensor:
        """The same."""
        strength = numbers[:, 3]
        matrix = turned(torch.zeros_like(strength), 1 - 0.2 * strength) * numbers[:, None, :3]
        return batched.add_grain(batched.levels(batched.affine(images, matrix, -4 * strength)), numbers, 4)


class Vignette(FrameTransform):
    """The light falls off towards the rim (cos^4 law), its centre shifted as when the cable or the scope is turned."""

    name = "vignette"
    shows = "Vignette, off-centre light"

    def draw(self, strength: float, rng: random.Random, height: int, width: int) -> list[float]:
        """How far it falls (at full strength the far corner keeps a seventh), and a window of the fall-off."""
        x, y = 0.5 + 0.25 * signed(rng), 0.5 + 0.25 * signed(rng)
        left, top = (round((1 - c) * _FALL_SIZE * 0.5) for c in (x, y))
        return [0.3 + 0.7 * strength, 0, top, left, _FALL_SIZE // 2, _FALL_SIZE // 2]

    def paint(self, image: np.ndarray, numbers: Sequence[float]) -> np.ndarray:
        """Multiply by a window of one precomputed fall-off."""
        fall, *window = numbers
        light = turbulence.cut(_cos_fourth(), window, *image.shape[:2])
        kept = np.rint(255 * (1 - fall * (1 - _LEVELS))).astype(np.uint8)
        return cv2.multiply(image, cv2.cvtColor(cv2.LUT(light, kept), cv2.COLOR_GRAY2RGB), scale=1 / 255)

    @staticmethod
    def paint_batch(images: Tensor, numbers: Tensor) -> Tensor:
        """The same."""
        light = batched.windows(_cos_fourth, numbers, 1, images.shape[-1])
        kept = (255 * (1 - batched.column(numbers, 0) * (1 - light / 255))).round()
        return images * (kept / 255)[:, None]


class LensFog(FrameTransform):
    """Condensation on the lens: patches of milky blur, bright parts bleeding into their surroundings."""

    name = "lens_fog"
    shows = "Fogged lens"

    _SHRINK = 8

    def draw(self, strength: float, rng: random.Random, height: int, width: int) -> list[float]:
        """How much is covered, how milky it is, the size of the small copy, and where it lies."""
        cover, veil, shrink = 0.3 + 0.6 * strength, 0.12 + 0.3 * strength, self._SHRINK + 10 * strength
        zoom = 0.05 + 0.08 * rng.random()
        small = max(3, round(height / shrink)), max(3, round(width / shrink))
        return [cover, veil, *small, *turbulence.window(height, width, zoom, rng)]

    def paint(self, image: np.ndarray, numbers: Sequence[float]) -> np.ndarray:
        """Blend towards a small, lifted copy of the image, enlarged again: a wide blur for the price of two resizes."""
        height, width = image.shape[:2]
        cover, veil, rows, columns, *window = numbers
        small = cv2.resize(image, (int(columns), int(rows)), interpolation=cv2.INTER_AREA)
        milk = cv2.addWeighted(small, 1 - veil, np.full_like(small, 185), veil, 12)
        foggy = cv2.resize(milk, (width, height), interpolation=cv2.INTER_LINEAR)
        field = turbulence.cut(turbulence.fields(), window, height, width)
        # A small window of the field spans few grey levels: the ramp runs between two of its own quantiles.
        thin, thick = turbulence.exceeded_by(field, cover), turbulence.exceeded_by(field, cover / 3)
        share = np.clip((_GREYS - thin) / max(6, thick - thin), 0, 1) * (0.5 + 0.4 * cover)
        fog = cv2.cvtColor(cv2.LUT(field, np.rint(255 * share).astype(np.uint8)), cv2.COLOR_GRAY2RGB)
        clear = cv2.multiply(image, cv2.bitwise_not(fog), scale=1 / 255)
        return cv2.add(clear, cv2.multiply(foggy, fog, scale=1 / 255))

    @classmethod
    def paint_batch(cls, images: Tensor, numbers: Tensor) -> Tensor:
        """The same; both resizes of an image are one matrix, along its rows and along its columns."""
        size, cover, veil = images.shape[-1], batched.column(numbers, 0), batched.column(numbers, 1)[:, None]
        blurred = batched.through_small(images, numbers[:, 2], max(3, round(size / cls._SHRINK)))
        foggy = batched.levels(blurred * (1 - veil) + (185 * veil + 12))
        field = batched.windows(turbulence.fields, numbers, 4, size)
        shares = torch.cat([numbers[:, :1], numbers[:, :1] / 3], dim=1)
        thin, thick = batched.exceeded_by(field, shares).unbind(1)
        fog = (255 * ((field - thin) / (thick - thin).clamp(min=6)).clamp(0, 1) * (0.5 + 0.4 * cover)).round()[:, None]
        return (images * (1 - fog / 255)).round() + (foggy * (fog / 255)).round()


class Defocus(FrameTransform):
    """Out of focus: a Gaussian blur of sigma 0.1 to 2 pixels, as DINOv2's."""

    name = "defocus"
    shows = "Defocus"

    def draw(self, strength: float, rng: random.Random, height: int, width: int) -> list[float]:
        """Sigma in 32nds of a pixel; 0 below 0.3, where in 8 bits the kernel would be a delta."""
        sigma = 0.1 + 1.9 * strength
        return [0 if sigma < 0.3 else round(sigma * 32)]

    def paint(self, image: np.ndarray, numbers: Sequence[float]) -> np.ndarray:
        """Two passes with a float kernel take half the time of cv2.GaussianBlur on three channels of uint8."""
        if not numbers[0]:
            return image
        kernel = _gaussian(int(numbers[0]))
        return cv2.sepFilter2D(image, -1, kernel, kernel)

    @staticmethod
    def paint_batch(images: Tensor, numbers: Tensor) -> Tensor:
        """The same kernel."""
        return batched.gaussian(images, numbers[:, 0] / 32, _REACH)


class MotionBlur(FrameTransform):
    """The camera moved while the shutter was open: an even blur along a line."""

    name = "motion_blur"
    shows = "Motion blur"
    _HALVINGS = 4

    def draw(self, strength: float, rng: random.Random, height: int, width: int) -> list[float]:
        """A border, where the first sample lies, and shifts by half the length, a quarter, ...: each down, then right.

        The length is up to 7 % of the crop's side, in any direction.
        """
        angle = math.pi * rng.random()
        reach = max(2.0, (0.01 + 0.06 * strength) * max(height, width))
        steps = [reach / 2**k for k in range(1, self._HALVINGS + 1)]
        shifts = [round(step * part) for step in steps for part in (math.sin(angle), math.cos(angle))]
        # What is lost at the borders is cut evenly: half of it lies before the first pixel.
        sides = shifts[::2], shifts[1::2]
        first = [sum(max(0, -shift) for shift in side) - math.ceil(sum(map(abs, side)) / 2) for side in sides]
        return [math.ceil(reach / 2) + self._HALVINGS, *first, *shifts]

    def paint(self, image: np.ndarray, numbers: Sequence[float]) -> np.ndarray:
        """Average the image with itself shifted: 16 samples in four passes."""
        height, width = image.shape[:2]
        margin, _, _, *shifts = map(int, numbers)
        blurred = cv2.copyMakeBorder(image, margin, margin, margin, margin, cv2.BORDER_REFLECT)
        for dy, dx in zip(shifts[::2], shifts[1::2], strict=True):
            blurred = _average_shifted(blurred, dx, dy)
        top, left = (blurred.shape[0] - height) // 2, (blurred.shape[1] - width) // 2
        return blurred[top : top + height, left : left + width]

    @classmethod
    def paint_batch(cls, images: Tensor, numbers: Tensor) -> Tensor:
        """The same 16 samples at once."""
        first, shifts = numbers[:, None, 1:3], numbers[:, 3 : 3 + 2 * cls._HALVINGS].unflatten(1, (cls._HALVINGS, 2))
        return batched.mean_of_shifted(images, first + batched.constant(cls._which, images.device) @ shifts)

    @classmethod
    def _which(cls) -> np.ndarray:
        """[16, 4]: the shifts that each sample takes part in."""
        return np.array(list(product((0, 1), repeat=cls._HALVINGS)))


class SensorNoise(FrameTransform):
    """Grain of the sensor, partly coloured, as a camera at high gain shows it."""

    name = "sensor_noise"
    shows = "Sensor noise"

    def draw(self, strength: float, rng: random.Random, height: int, width: int) -> list[float]:
        """Standard deviation 2 to 11 grey levels."""
        return turbulence.grain_window((2 + 9 * strength) / 255, rng, height, width)

    def paint(self, image: np.ndarray, numbers: Sequence[float]) -> np.ndarray:
        """One addition."""
        return turbulence.add_grain(image, numbers)

    @staticmethod
    def paint_batch(images: Tensor, numbers: Tensor) -> Tensor:
        """The same."""
        return batched.add_grain(images, numbers, 0)


class Compression(FrameTransform):
    """Blocks and ringing of a recorder that saved disk space.

    It has no device form: an encoder's output is of a size that the host would have to wait for.
    """

    name = "compression"
    shows = "Compression artefacts"

    def draw(self, strength: float, rng: random.Random, height: int, width: int) -> list[float]:
        """JPEG quality from 60 down to 12."""
        return [round(60 - 48 * strength)]

    def paint(self, image: np.ndarray, numbers: Sequence[float]) -> np.ndarray:
        """There and back."""
        settings = [cv2.IMWRITE_JPEG_QUALITY, int(numbers[0])]
        packed = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), settings)[1]
        return cv2.cvtColor(np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR)), cv2.COLOR_BGR2RGB)


_FALL_SIZE = 512
_REACH = 4  # pixels: Defocus reaches two sigma, and no further than DINOv2's nine pixels


@lru_cache(maxsize=1)
def _cos_fourth() -> np.ndarray:
    """uint8 [1, 512, 512]: cos^4 of the angle off the axis, 255 in the middle; its corner is 68 degrees off."""
    y, x = (np.mgrid[0:_FALL_SIZE, 0:_FALL_SIZE] + 0.5) / (_FALL_SIZE / 2) - 1
    squared = (x * x + y * y) * 3
    return np.rint(255 / (1 + squared) ** 2).astype(np.uint8)[None]


@lru_cache(maxsize=128)
def _gaussian(thirty_seconds: int) -> np.ndarray:
    sigma = thirty_seconds / 32
    return cv2.getGaussianKernel(2 * min(_REACH, math.ceil(2 * sigma)) + 1, sigma, cv2.CV_32F)


def _average_shifted(image: np.ndarray, dx: int, dy: int) -> np.ndarray:
    """Mean of the image and itself shifted by (dx, dy), where the two overlap."""
    if dx == 0 and dy == 0:
        return image
    height, width = image.shape[0] - abs(dy), image.shape[1] - abs(dx)
    y, x, shifted_y, shifted_x = max(0, -dy), max(0, -dx), max(0, dy), max(0, dx)
    shifted = image[shifted_y : shifted_y + height, shifted_x : shifted_x + width]
    return cv2.addWeighted(image[y : y + height, x : x + width], 0.5, shifted, 0.5, 0)
