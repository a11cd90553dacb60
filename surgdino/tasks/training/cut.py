"""Where in a stored frame a training picture is cut, and how it is flipped and augmented: the same for its masks."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from surgdino.crops.augment.build import Augment, build_augment
from surgdino.crops.augment.transform import Drawn
from surgdino.crops.multicrop import to_planes
from surgdino.crops.region import Box, sample_box
from surgdino.frames.content import Content


@dataclass(frozen=True)
class Cut:
    """What was done to the geometry of a picture.

    Attributes:
        box: (x0, y0, x1, y1) in pixels of the stored frame, half-open.
        size: side of the square that it was resized to.
        flip_horizontal, flip_vertical: afterwards.
    """

    box: Box
    size: int
    flip_horizontal: bool = False
    flip_vertical: bool = False

    def apply(self, image: np.ndarray, interpolation: int = cv2.INTER_LINEAR) -> np.ndarray:
        """[H, W, ...] of the stored frame's size -> [size, size, ...]; for masks use `cv2.INTER_NEAREST_EXACT`
        (the plain one is half a pixel off)."""
        x0, y0, x1, y1 = self.box
        placed = cv2.resize(image[y0:y1, x0:x1], (self.size, self.size), interpolation=interpolation)
        if self.flip_horizontal:
            placed = cv2.flip(placed, 1)
        return cv2.flip(placed, 0) if self.flip_vertical else placed


@dataclass
class Cutter:
    """Cuts a picture inside the endoscope's disc, flips it, changes its light and sharpness.

    Attributes:
        size: side in pixels of what comes out.
        augment: the `augment` section: flips and transforms; empty leaves everything as it is.
        scale: range of the cut's area as a share of the largest box that fits; (1, 1) takes the whole frame.
        ratio: range of its width / height.
    """

    size: int
    augment: Mapping[str, Any] = field(default_factory=dict)
    scale: tuple[float, float] = (1.0, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        built = build_augment(self.augment, "global_1")
        self._flips = built.horizontal_flip, built.vertical_flip
        # The flips are ours: masks need to know of them.
        self._photometric = Augment(0.0, 0.0, built.chain, built.on_device)

    @property
    def chain(self) -> list[str]:
        """Names of what changes light and sharpness, in order."""
        return [each.name for each in self._photometric.chain]

    def fill(self, image: np.ndarray, content: Content, seed: int, out: np.ndarray) -> tuple[Cut, Sequence[Drawn]]:
        """Write one picture as uint8 planes; where it was cut, and what the device is to paint (`augment.on=gpu`).

        Args:
            image: uint8 [H, W, 3] RGB, a stored frame.
            content: its disc or rectangle.
            seed: all randomness comes from it.
            out: uint8 [3, size, size].
        """
        rng = random.Random(seed)
        cut = self.draw(image.shape[0], image.shape[1], content, rng)
        shrinks = cut.box[2] - cut.box[0] > self.size and cut.box[3] - cut.box[1] > self.size
        placed = cut.apply(image, cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        painted, left = self._photometric.paint(*self._photometric.draw(placed, rng))
        to_planes(painted, out)
        return cut, left

    def draw(self, height: int, width: int, content: Content, rng: random.Random) -> Cut:
        """Where the next picture of a frame of that size is cut, and whether it is flipped."""
        box: Box = (0, 0, width, height)
        if self.scale != (1.0, 1.0):
            box = sample_box(content, height, width, self.scale, self.ratio, rng)
        horizontal, vertical = (rng.random() < chance for chance in self._flips)
        return Cut(box, self.size, horizontal, vertical)
