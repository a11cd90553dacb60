"""From the `augment` section of the configuration to the function that augments one view."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import random
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import cv2
import numpy as np

import surgdino.crops.augment
from surgdino.config import typed
from surgdino.crops.augment.settings import AugmentSettings, View
from surgdino.crops.augment.transform import Drawn, FrameTransform


@cache
def transforms() -> dict[str, type[FrameTransform]]:
    """Every augmentation by name: the named `FrameTransform`s of all modules beside this one."""
    found: dict[str, type[FrameTransform]] = {}
    for module in sorted(m.name for m in pkgutil.iter_modules(surgdino.crops.augment.__path__)):
        members = vars(importlib.import_module(f"surgdino.crops.augment.{module}")).values()
        kinds = (m for m in members if inspect.isclass(m) and issubclass(m, FrameTransform) and m.name)
        found |= {kind.name: kind for kind in kinds}
    return found


class Augment:
    """Flips and augments crops of one view, in the order of the configuration.

    Args of the call: image uint8 [H, W, 3], and the generator that all its randomness comes from.

    Attributes:
        on_device: whether the device paints what it can.
    """

    def __init__(
        self, horizontal_flip: float, vertical_flip: float, chain: list[FrameTransform], on_device: bool = False
    ) -> None:
        self.horizontal_flip, self.vertical_flip, self.chain = horizontal_flip, vertical_flip, chain
        self.on_device = on_device

    def __call__(self, image: np.ndarray, rng: random.Random) -> np.ndarray:
        image, drawn = self.draw(image, rng)
        for each in drawn:
            image = each.paint(image)
        return image

    def draw(self, image: np.ndarray, rng: random.Random) -> tuple[np.ndarray, list[Drawn]]:
        """The image flipped, and what is still to be painted on it."""
        image = self.flip(image, rng)
        height, width = image.shape[:2]
        return image, [t.drawn(rng, height, width) for t in self.chain if rng.random() < t.p]

    def paint(self, image: np.ndarray, drawn: Sequence[Drawn]) -> tuple[np.ndarray, Sequence[Drawn]]:
        """The image with what is painted here, and what is left to the device, in order: all from the first transform
        on after which every one has a form for it. So the order of the chain is kept."""
        here = len(drawn)
        while self.on_device and here and drawn[here - 1].transform.has_batch_form():
            here -= 1
        for each in drawn[:here]:
            image = each.paint(image)
        return image, drawn[here:]

    def flip(self, image: np.ndarray, rng: random.Random) -> np.ndarray:
        """The first thing that is drawn."""
        if rng.random() < self.horizontal_flip:
            image = cv2.flip(image, 1)
        if rng.random() < self.vertical_flip:
            image = cv2.flip(image, 0)
        return image


def build_augment(cfg: Mapping[str, Any], view: View) -> Augment:
    """The augmentation of one of the views; DINO solarises the second global view alone, for example.

    Args:
        cfg: `AugmentSettings` as a mapping.
    """
    settings = typed(AugmentSettings, cfg, "augment")
    chain = [transforms()[name](**vars(effect)) for name, effect in settings.effects(view).items()]
    applied = [each for each in chain if each.p > 0]
    return Augment(settings.horizontal_flip, settings.vertical_flip, applied, settings.on == "gpu")
