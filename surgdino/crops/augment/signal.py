"""The signal chain after the sensor: grain and compression."""

from __future__ import annotations

import random
from typing import Any

import cv2
import numpy as np

from surgdino.crops.augment import turbulence
from surgdino.crops.augment.transform import FrameTransform


class SensorNoise(FrameTransform):
    """Grain of the sensor, partly coloured, as a gained-up camera shows it."""

    name = "sensor_noise"
    shows = "Sensor noise"

    def draw(self, rng: random.Random, strength: float) -> dict[str, Any]:
        """Standard deviation 2 to 11 grey levels."""
        return {"grain": (2 + 9 * strength) / 255, "rng": rng}

    def apply(self, img: np.ndarray, grain: float, rng: random.Random, **_: Any) -> np.ndarray:
        """One weighted sum with a window of precomputed grain."""
        return turbulence.add_grain(img, grain, rng)


class Compression(FrameTransform):
    """Blocks and ringing of a recorder that saved disk space."""

    name = "compression"
    shows = "Compression artefacts"

    def draw(self, rng: random.Random, strength: float) -> dict[str, Any]:
        """JPEG quality from 60 down to 12."""
        return {"quality": round(60 - 48 * strength)}

    def apply(self, img: np.ndarray, quality: int, **_: Any) -> np.ndarray:
        """Encode and decode."""
        settings = [cv2.IMWRITE_JPEG_QUALITY, quality]
        packed = cv2.imencode(".jpg", cv2.cvtColor(img, cv2.COLOR_RGB2BGR), settings)[1]
        return cv2.cvtColor(np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR)), cv2.COLOR_BGR2RGB)
