"""From the `augment` section of the configuration to the function that augments one view."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import random
from collections.abc import Mapping
from dataclasses import dataclass, field, make_dataclass
from functools import cache
from typing import Any, Literal, get_type_hints

import cv2
import numpy as np

import surgdino.crops.augment
from surgdino.config import Share, typed
from surgdino.crops.augment.transform import Drawn, FrameTransform
from surgdino.errors import SurgdinoError, nearest

View = Literal["global_1", "global_2", "local"]
VIEWS: tuple[View, ...] = ("global_1", "global_2", "local")


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
    """

    def __init__(self, horizontal_flip: float, vertical_flip: float, chain: list[FrameTransform]) -> None:
        self.horizontal_flip, self.vertical_flip, self.chain = horizontal_flip, vertical_flip, chain

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

    def flip(self, image: np.ndarray, rng: random.Random) -> np.ndarray:
        """The first thing that is drawn."""
        if rng.random() < self.horizontal_flip:
            image = cv2.flip(image, 1)
        if rng.random() < self.vertical_flip:
            image = cv2.flip(image, 0)
        return image


@dataclass(frozen=True)
class AugmentSettings:
    """The `augment` section: flips (probabilities), and name -> settings of the transforms, applied in this order.

    `p`, and any other setting of a transform, is one value or a mapping view -> value; null leaves a transform out.
    `on` says where they are applied: by the workers that cut, or as far as possible on the device that trains.
    """

    name: str = ""
    on: Literal["cpu", "gpu"] = "cpu"
    horizontal_flip: Share = 0.0
    vertical_flip: Share = 0.0
    transforms: dict[str, Any] | None = None


def build_augment(cfg: Mapping[str, Any], view: View) -> Augment:
    """The augmentation of one of the views; DINO solarises the second global view alone, for example.

    Args:
        cfg: `AugmentSettings` as a mapping.
    """
    settings = typed(AugmentSettings, cfg, "augment")
    named = (settings.transforms or {}).items()
    chain = [_build(name, given, view) for name, given in named if given is not None]
    return Augment(settings.horizontal_flip, settings.vertical_flip, [each for each in chain if each.p > 0])


def _build(name: str, settings: Mapping[str, Any], view: View) -> FrameTransform:
    if name not in transforms():
        raise SurgdinoError(f"unknown augmentation augment.transforms.{name}", fix=nearest(name, transforms()))
    place = f"augment.transforms.{name}"
    if not isinstance(settings, Mapping):
        raise SurgdinoError(f"{place} cannot be used", expected="settings such as {p: 0.5}", found=settings)
    chosen = {key: _for_view(value, view, f"{place}.{key}") for key, value in settings.items()}
    return transforms()[name](**vars(typed(_settings_of(name), chosen, place)))


@cache
def _settings_of(name: str) -> type:
    """A dataclass of a transform's arguments."""
    kind = transforms()[name]
    hints = get_type_hints(kind.__init__, include_extras=True)
    arguments = inspect.signature(kind).parameters.values()
    fields = [(each.name, hints[each.name], field(default=each.default)) for each in arguments]
    return make_dataclass(kind.__name__, fields)


def _for_view(value: Any, view: View, key: str) -> Any:
    if not isinstance(value, Mapping):
        return value
    for given in value:
        if given not in VIEWS:
            raise SurgdinoError(f"unknown view {key}.{given}", fix=nearest(str(given), VIEWS))
    if len(value) < len(VIEWS):
        raise SurgdinoError("a view is missing", place=key, expected=", ".join(VIEWS), found=", ".join(value))
    return value[view]
