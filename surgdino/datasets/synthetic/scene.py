"""Pictures for the synthetic set: tissue, smoke, light and the endoscope's disc, drawn with whole-image operations.

Nothing here claims to be anatomy. What matters to the rooms after it is true to life: a disc on black whose place
varies per video, colour casts between video towers, texture at many scales that moves coherently, phases that look
different, smoke, drapes outside of the body.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

# The scene is painted larger than the frame, so that the camera can move without showing its edge.
_MARGIN = 1.3
_CAST_STRENGTH = 0.12
_VESSEL = np.array((176, 40, 44), np.float32)
_BLOOD = np.array((122, 8, 12), np.float32)


@dataclass(frozen=True)
class Look:
    """What distinguishes one phase from another in the picture.

    Attributes:
        zoom: camera distance, 1 = overview.
        gallbladder: size of the organ relative to the frame; 0 = it is gone.
        blood: share of the tissue that is covered with blood.
        fat: height of the fat's edge as a share of the frame.
        gain: brightness.
    """

    zoom: float
    gallbladder: float
    blood: float
    fat: float
    gain: float


PHASE_LOOKS = (
    Look(zoom=1.00, gallbladder=0.34, blood=0.00, fat=0.70, gain=0.85),  # Preparation: overview, untouched
    Look(zoom=1.30, gallbladder=0.32, blood=0.06, fat=0.55, gain=1.00),  # CalotTriangleDissection: close, fatty
    Look(zoom=1.45, gallbladder=0.30, blood=0.08, fat=0.58, gain=1.10),  # ClippingCutting
    Look(zoom=1.20, gallbladder=0.24, blood=0.20, fat=0.72, gain=0.95),  # GallbladderDissection: liver bed
    Look(zoom=1.05, gallbladder=0.15, blood=0.10, fat=0.64, gain=1.05),  # GallbladderPackaging
    Look(zoom=1.25, gallbladder=0.00, blood=0.30, fat=0.78, gain=0.90),  # CleaningCoagulation: blood, no organ
    Look(zoom=0.95, gallbladder=0.00, blood=0.08, fat=0.50, gain=0.70),  # GallbladderRetraction: dark, far
)


class Scene:
    """One operation's pictures: the same anatomy, light and colour in all of its frames.

    Attributes:
        centre, radius: the endoscope's disc in pixels; parts of it may lie outside of the frame, as in real recordings.
    """

    def __init__(self, rng: np.random.Generator, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.radius = float(width * rng.uniform(0.38, 0.47))
        self.centre = (float(width * rng.uniform(0.46, 0.54)), float(height * rng.uniform(0.46, 0.54)))
        self._anatomy = _Anatomy(rng, round(width * _MARGIN), round(height * _MARGIN))
        self._textures: dict[int, np.ndarray] = {}
        self._drapes = _four_channels(_paint_drapes(rng, round(width * _MARGIN), round(height * _MARGIN)))
        cast = 1 + rng.uniform(-_CAST_STRENGTH, _CAST_STRENGTH, 3)
        self._light = _light(rng, width, height, self.centre, self.radius, cast)
        self._smoke = _paint_smoke(rng, round(width * _MARGIN), round(height * _MARGIN))
        self._sway = rng.uniform(0, 2 * np.pi, 6)

    def tissue(self, phase: int, seconds: float) -> np.ndarray:
        """The tissue of `phase` at a moment, before instruments and light: uint8 [height, width, 3] RGB."""
        if phase not in self._textures:
            self._textures[phase] = _four_channels(self._anatomy.paint(PHASE_LOOKS[phase]))
        return self._view(self._textures[phase], PHASE_LOOKS[phase].zoom, seconds)

    def outside(self, seconds: float) -> np.ndarray:
        """The view while the camera is out of the body: drapes under the theatre's lights."""
        return self._view(self._drapes, 1.0, 2.5 * seconds)

    def finish(self, image: np.ndarray, smoke: float, seconds: float) -> np.ndarray:
        """Add smoke (0 to 1), the light's fall-off, the tower's colour cast and the disc on black."""
        if smoke > 0.01:
            room_y, room_x = self._smoke.shape[0] - self.height, self._smoke.shape[1] - self.width
            top = int(room_y * (0.5 + 0.5 * np.cos(0.35 * seconds)))
            left = int(room_x * (0.5 + 0.5 * np.sin(0.27 * seconds)))
            veil = self._smoke[top : top + self.height, left : left + self.width]
            image = cv2.addWeighted(image, 1 - 0.35 * smoke, veil, 0.6 * smoke, 0)
        return cv2.multiply(image, self._light, scale=1 / 160)

    def _view(self, texture: np.ndarray, zoom: float, seconds: float) -> np.ndarray:
        """The camera's window on a texture: sway, a slow roll, and breathing (15 a minute) as a change of distance."""
        a, b, c, d, e, f = self._sway
        x = 0.05 * np.sin(0.31 * seconds + a) + 0.02 * np.sin(1.3 * seconds + b)
        y = 0.05 * np.sin(0.23 * seconds + c) + 0.02 * np.sin(1.7 * seconds + d)
        degrees = 5 * np.sin(0.19 * seconds + e)
        scale = zoom * (1.02 + 0.025 * np.sin(2 * np.pi * 0.25 * seconds + f))
        middle = (texture.shape[1] / 2, texture.shape[0] / 2)
        matrix = cv2.getRotationMatrix2D(middle, degrees, scale)
        matrix[:, 2] += (self.width / 2 - middle[0] + x * self.width, self.height / 2 - middle[1] + y * self.height)
        # Four channels: OpenCV warps them in half the time that three take.
        view = cv2.warpAffine(texture, matrix, (self.width, self.height), borderMode=cv2.BORDER_REFLECT)
        return cv2.cvtColor(view, cv2.COLOR_RGBA2RGB)


class _Anatomy:
    """The fields that one operation's tissue is painted from; phases mix them differently."""

    def __init__(self, rng: np.random.Generator, width: int, height: int) -> None:
        self.y, self.x = np.mgrid[0:height, 0:width].astype(np.float32)
        self.y, self.x = self.y / height, self.x / width
        self.coarse = _fractal(rng, height, width, cells=4)
        self.fine = _fractal(rng, height, width, cells=24)
        self.lobules = _fractal(rng, height, width, cells=9)
        self.vessels = 1 - np.clip(np.abs(_fractal(rng, height, width, cells=6) - 0.5) / 0.03, 0, 1)
        self.glints = _fractal(rng, height, width, cells=16) * _fractal(rng, height, width, cells=40)
        self.place = (rng.uniform(0.44, 0.56), rng.uniform(0.36, 0.46))
        self.tilt = rng.uniform(-0.7, 0.7)
        self.slope = rng.uniform(-0.35, 0.35)

    def paint(self, look: Look) -> np.ndarray:
        """The whole scene of one phase: uint8 [H, W, 3] RGB."""
        image = _mix((74, 20, 22), (150, 62, 54), 0.75 * self.coarse + 0.25 * self.fine)
        relief = self.coarse + 0.15 * self.fine
        image, relief = self._add_fat(image, relief, look.fat)
        if look.gallbladder > 0:
            image, relief = self._add_gallbladder(image, relief, look.gallbladder)
        image = self._add_blood(image, look.blood)
        shaded = image * (look.gain * np.clip(1 + 9 * _slope_to_light(relief), 0.45, 1.6))[..., None]
        threshold = np.quantile(self.glints, 0.985)
        wet = _smooth((self.glints - threshold) / 0.12)[..., None]
        return np.clip(shaded * (1 - wet) + 250 * wet, 0, 255).astype(np.uint8)

    def _add_fat(self, image: np.ndarray, relief: np.ndarray, edge: float) -> tuple[np.ndarray, np.ndarray]:
        border = edge + self.slope * (self.x - 0.5) + 0.22 * (self.coarse - 0.5) + 0.06 * (self.lobules - 0.5)
        cover = _smooth((self.y - border) / 0.02)[..., None]
        creases = _smooth(np.abs(self.lobules - 0.5) / 0.16)
        fat = _mix((170, 100, 46), (232, 186, 116), 0.45 * creases + 0.55 * self.coarse)
        fat_relief = 0.28 * creases + 0.6 * self.lobules
        return image * (1 - cover) + fat * cover, relief * (1 - cover[..., 0]) + fat_relief * cover[..., 0]

    def _add_gallbladder(self, image: np.ndarray, relief: np.ndarray, size: float) -> tuple[np.ndarray, np.ndarray]:
        aspect = self.x.shape[1] / self.x.shape[0]
        dx, dy = (self.x - self.place[0]) * aspect, self.y - self.place[1]
        along, across = np.sin(self.tilt) * dx + np.cos(self.tilt) * dy, np.cos(self.tilt) * dx - np.sin(self.tilt) * dy
        # The organ tapers towards its neck, and its outline is not quite even.
        across = across / (0.62 - 0.5 * along) + 0.10 * size * (self.lobules - 0.5)
        distance = np.sqrt((along / size) ** 2 + (across / size) ** 2)
        cover = _smooth((1 - distance) / 0.05)[..., None]
        wall = _mix((172, 128, 132), (226, 204, 190), 0.7 * self.coarse + 0.3 * self.fine)
        wall = wall * (1 - 0.55 * self.vessels[..., None]) + _VESSEL * 0.55 * self.vessels[..., None]
        dome = np.sqrt(np.clip(1 - distance**2, 0, 1)) * 0.9 + 0.12 * self.fine
        return image * (1 - cover) + wall * cover, relief * (1 - cover[..., 0]) + dome * cover[..., 0]

    def _add_blood(self, image: np.ndarray, share: float) -> np.ndarray:
        if share <= 0:
            return image
        field = 0.7 * self.lobules + 0.3 * self.fine
        cover = 0.85 * _smooth((field - np.quantile(field, 1 - share)) / 0.03)[..., None]
        return image * (1 - cover) + _BLOOD * cover


def _four_channels(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(image, cv2.COLOR_RGB2RGBA)


def _paint_drapes(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    folds = _fractal(rng, height, width, cells=3)
    weave = 0.5 + 0.5 * np.sin(np.mgrid[0:height, 0:width][0] * 1.3 + 30 * folds)
    cloth = _mix((22, 96, 112), (150, 208, 214), 0.85 * folds + 0.15 * weave)
    lamp = _smooth((_fractal(rng, height, width, cells=2) - 0.75) / 0.15)[..., None]
    return np.clip(cloth * (1 - lamp) + 245 * lamp, 0, 255).astype(np.uint8)


def _paint_smoke(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    density = np.clip(255 * (0.25 + 0.9 * _fractal(rng, height, width, cells=3)), 0, 255).astype(np.uint8)
    return cv2.merge([density, density, density])


def _light(
    rng: np.random.Generator, width: int, height: int, centre: tuple[float, float], radius: float, cast: np.ndarray
) -> np.ndarray:
    """Illumination x colour cast x disc as one uint8 [H, W, 3] factor, so that a frame needs one multiplication."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    distance = np.hypot(x - centre[0], y - centre[1])
    lamp = np.hypot(x - centre[0] - rng.uniform(-0.1, 0.1) * width, y - centre[1] - rng.uniform(-0.1, 0.1) * height)
    fall_off = np.clip(1.15 - 0.75 * (lamp / radius) ** 2, 0.25, 1)
    disc = np.clip(radius - distance + 0.5, 0, 1)
    return np.clip(180 * (fall_off * disc)[..., None] * cast.astype(np.float32), 0, 255).astype(np.uint8)


def _fractal(rng: np.random.Generator, height: int, width: int, cells: int) -> np.ndarray:
    """Smooth noise over four octaves, float32 [height, width] stretched to 0-1; `cells` = grains of the coarsest."""
    field = np.zeros((height, width), np.float32)
    for octave in range(4):
        grains = cells * 2**octave
        grid = rng.random((grains + 1, grains * width // height + 1), dtype=np.float32)
        field += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) * 0.55**octave
    return (field - field.min()) / (field.max() - field.min())


def _mix(low: tuple[int, int, int], high: tuple[int, int, int], share: np.ndarray) -> np.ndarray:
    share = share[..., None].astype(np.float32)
    return np.array(low, np.float32) * (1 - share) + np.array(high, np.float32) * share


def _smooth(ramp: np.ndarray) -> np.ndarray:
    ramp = np.clip(ramp, 0, 1)
    return ramp * ramp * (3 - 2 * ramp)


def _slope_to_light(relief: np.ndarray) -> np.ndarray:
    """How much a surface leans towards the upper left, where the light stands."""
    soft = cv2.GaussianBlur(relief.astype(np.float32), (0, 0), 1.5)
    return cv2.Sobel(soft, cv2.CV_32F, 1, 0, scale=1 / 8) + cv2.Sobel(soft, cv2.CV_32F, 0, 1, scale=1 / 8)
