"""Multi-crop: two large views and several small ones of a frame, cut inside the endoscope's disc, as uint8 planes."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from surgdino.config import typed
from surgdino.crops.augment.build import Augment, build_augment
from surgdino.crops.augment.settings import VIEWS, AugmentSettings, View
from surgdino.crops.augment.transform import Drawn
from surgdino.crops.region import Box, sample_box
from surgdino.crops.settings import GLOBAL_VIEWS, CropSettings
from surgdino.frames.content import Content

# A frame, uint8 [H, W, 3] RGB, and where its picture is.
Picture = tuple[np.ndarray, Content]
# OpenCV's linear resize reads four source pixels whatever the factor; beyond this one area averaging is worth its cost.
_AREA_BEYOND = 2.0


class MultiCrop:
    """Cuts and augments all views of an image; the same frames and seed give the same bytes in any process.

    An image is one frame, or a pair of near frames: then the second global view and the last half of the local ones
    (rounded down) come from the second frame. So each teacher view is compared with local views of both moments.
    """

    def __init__(self, settings: CropSettings, augment_cfg: Mapping[str, Any]) -> None:
        self.settings = settings
        self.chain = tuple(typed(AugmentSettings, augment_cfg, "augment").transforms or {})
        self.augments: dict[View, Augment] = {view: build_augment(augment_cfg, view) for view in VIEWS}
        local: tuple[View, ...] = ("local",)
        self.order: tuple[View, ...] = ("global_1", "global_2", *local * settings.local_count)
        own_locals = settings.local_count - settings.local_count // 2
        self.from_second = (False, True, *(place >= own_locals for place in range(settings.local_count)))

    def __call__(
        self, image: np.ndarray, content: Content, seed: int, second: Picture | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """uint8 [2, 3, S, S] global and uint8 [L, 3, s, s] local crops; see `fill`."""
        s = self.settings
        global_crops = np.empty((GLOBAL_VIEWS, 3, s.global_size, s.global_size), np.uint8)
        local_crops = np.empty((s.local_count, 3, s.local_size, s.local_size), np.uint8)
        self.fill(image, content, seed, global_crops, local_crops, second)
        return global_crops, local_crops

    def fill(
        self,
        image: np.ndarray,
        content: Content,
        seed: int,
        global_crops: np.ndarray,
        local_crops: np.ndarray,
        second: Picture | None = None,
        clean: np.ndarray | None = None,
    ) -> list[Sequence[Drawn]]:
        """Write the views of one frame, or of a pair, into arrays of a batch.

        Args:
            image: uint8 [H, W, 3] RGB.
            content: its disc or rectangle, in its pixels.
            seed: any integer.
            second: the pair's other frame and its content.
            clean: uint8 [2, 3, T, T], where the global crops go as they are cut and flipped, at that size.

        Returns:
            What is still to be painted on each view, in order; see `Augment.paint`.
        """
        left = []
        outputs = (*global_crops, *local_crops)
        for out, (view, _, crop, drawn) in zip(outputs, self._drawn(image, content, seed, second, clean), strict=True):
            crop, of_view = self.augments[view].paint(crop, drawn)
            to_planes(crop, out)
            left.append(of_view)
        return left

    def views(
        self, image: np.ndarray, content: Content, seed: int, second: Picture | None = None
    ) -> Iterator[tuple[View, Box, np.ndarray]]:
        """Each view in turn: its kind, its box in its frame, and its augmented crop as uint8 [S, S, 3]."""
        for view, box, crop, drawn in self._drawn(image, content, seed, second):
            for each in drawn:
                crop = each.paint(crop)
            yield view, box, crop

    def _drawn(
        self, image: np.ndarray, content: Content, seed: int, second: Picture | None, clean: np.ndarray | None = None
    ) -> Iterator[tuple[View, Box, np.ndarray, list[Drawn]]]:
        s, rng = self.settings, random.Random(seed)
        first = image, content
        for place, (view, from_second) in enumerate(zip(self.order, self.from_second, strict=True)):
            image, content = second if second is not None and from_second else first
            scale, size = (s.local_scale, s.local_size) if view == "local" else (s.global_scale, s.global_size)
            height, width = image.shape[:2]
            inside = content if s.inside_disc else Content.full(height, width)
            box = sample_box(inside, height, width, scale, s.ratio, rng)
            if clean is not None and view != "local":
                same = random.Random()  # draws the flips of the crop below
                same.setstate(rng.getstate())
                to_planes(self.augments[view].flip(cut(image, box, clean.shape[-1]), same), clean[place])
            yield view, box, *self.augments[view].draw(cut(image, box, size), rng)


def cut(image: np.ndarray, box: Box, size: int) -> np.ndarray:
    """uint8 [size, size, 3]: the box resized in one pass, without a copy of the crop in between."""
    x0, y0, x1, y1 = box
    shrink = max(x1 - x0, y1 - y0) / size
    method = cv2.INTER_AREA if shrink > _AREA_BEYOND else cv2.INTER_LINEAR
    return cv2.resize(image[y0:y1, x0:x1], (size, size), interpolation=method)


def to_planes(crop: np.ndarray, out: np.ndarray) -> None:
    """Write uint8 [S, S, 3] into uint8 [3, S, S]; OpenCV's split is twice as fast as numpy's transposed copy."""
    cv2.split(crop, [out[0], out[1], out[2]])
