"""From the `augment` section of the configuration to the function that augments one view."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import random
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal

import cv2
import numpy as np

import surgdino.crops.augment
from surgdino.crops.augment.transform import FrameTransform, number_in
from surgdino.errors import SurgdinoError, nearest

View = Literal["global_1", "global_2", "local"]
VIEWS: tuple[View, ...] = ("global_1", "global_2", "local")
_FLIPS = ("horizontal_flip", "vertical_flip")


@lru_cache(maxsize=1)
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
    """

    def __init__(self, horizontal_flip: float, vertical_flip: float, chain: list[FrameTransform]) -> None:
        self.horizontal_flip, self.vertical_flip, self.chain = horizontal_flip, vertical_flip, chain

    def __call__(self, image: np.ndarray, rng: random.Random) -> np.ndarray:
        if rng.random() < self.horizontal_flip:
            image = cv2.flip(image, 1)
        if rng.random() < self.vertical_flip:
            image = cv2.flip(image, 0)
        for transform in self.chain:
            if rng.random() < transform.p:
                image = transform.sample(image, rng)
        return image


def build_augment(cfg: Mapping[str, Any], view: View) -> Augment:
    """The augmentation of one view.

    Args:
        cfg: `horizontal_flip`, `vertical_flip` (probabilities) and `transforms`: name -> its settings, applied in this
            order. `p`, and any other setting, is one value or a mapping view -> value; null leaves a transform out.
        view: which of the three; DINO solarises the second global view alone, for example.

    Raises:
        SurgdinoError: an unknown transform or setting (with the nearest valid name), or a value out of its range.
    """
    known = {"name", "transforms", *_FLIPS}
    for key in cfg:
        if key not in known:
            raise SurgdinoError(f"unknown setting augment.{key}", fix=nearest(str(key), known))
    horizontal, vertical = (number_in(cfg.get(key, 0.0), f"augment.{key}", 0, 1) for key in _FLIPS)
    named = (cfg.get("transforms") or {}).items()
    chain = [_build(name, settings, view) for name, settings in named if settings is not None]
    return Augment(horizontal, vertical, [transform for transform in chain if transform.p > 0])


def _build(name: str, settings: Mapping[str, Any], view: View) -> FrameTransform:
    if name not in transforms():
        raise SurgdinoError(f"unknown augmentation augment.transforms.{name}", fix=nearest(name, transforms()))
    kind = transforms()[name]
    valid = set(inspect.signature(kind.__init__).parameters) - {"self"}
    if not isinstance(settings, Mapping):
        raise SurgdinoError(
            "unusable setting", place=f"augment.transforms.{name}", expected="settings such as {p: 0.5}", found=settings
        )
    for key in settings:
        if key not in valid:
            raise SurgdinoError(f"unknown setting augment.transforms.{name}.{key}", fix=nearest(str(key), valid))
    chosen = {key: _for_view(value, view, f"augment.transforms.{name}.{key}") for key, value in settings.items()}
    return kind(**chosen)


def _for_view(value: Any, view: View, key: str) -> Any:
    if not isinstance(value, Mapping):
        return value
    for given in value:
        if given not in VIEWS:
            raise SurgdinoError(f"unknown view {key}.{given}", fix=nearest(str(given), VIEWS))
    if len(value) < len(VIEWS):
        raise SurgdinoError("a view is missing", place=key, expected=", ".join(VIEWS), found=", ".join(value))
    return value[view]
