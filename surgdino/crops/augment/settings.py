"""The `augment` section: what each view is augmented by. Imports no torch, which albumentations does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from surgdino.config import Range, Share, typed
from surgdino.errors import SurgdinoError, nearest

View = Literal["global_1", "global_2", "local"]
VIEWS: tuple[View, ...] = ("global_1", "global_2", "local")


def _ascending(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError("not ascending")
    return bounds


Strength = Annotated[Range, AfterValidator(_ascending)]


@dataclass(frozen=True)
class EffectSettings:
    """What every transform takes, see `FrameTransform`."""

    strength: Strength = (0.0, 1.0)
    p: Share = 0.5


@dataclass(frozen=True)
class JitterSettings(EffectSettings):
    """What `ColourJitter` takes."""

    brightness: Share = 0.4
    contrast: Share = 0.4
    saturation: Share = 0.2
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    strength: Strength = (1.0, 1.0)
    p: Share = 0.8


# Every augmentation by name: its settings.
EFFECTS: dict[str, type[EffectSettings]] = {
    **dict.fromkeys(("blood", "compression", "defocus", "greyscale", "highlights", "lens_fog"), EffectSettings),
    **dict.fromkeys(("low_light", "motion_blur", "sensor_noise", "smoke", "solarise"), EffectSettings),
    **dict.fromkeys(("tower_drift", "vignette"), EffectSettings),
    "colour_jitter": JitterSettings,
}


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

    def effects(self, view: View) -> dict[str, EffectSettings]:
        """Of each transform that is not left out, what it takes for a view.

        Raises:
            SurgdinoError: no such transform, or a setting that it does not take.
        """
        named = (self.transforms or {}).items()
        return {name: _effect(name, given, view) for name, given in named if given is not None}


def _effect(name: str, settings: Any, view: View) -> EffectSettings:
    place = f"augment.transforms.{name}"
    if name not in EFFECTS:
        raise SurgdinoError(f"unknown augmentation {place}", fix=nearest(name, EFFECTS))
    if not isinstance(settings, Mapping):
        raise SurgdinoError(f"{place} cannot be used", expected="settings such as {p: 0.5}", found=settings)
    chosen = {key: _for_view(value, view, f"{place}.{key}") for key, value in settings.items()}
    return typed(EFFECTS[name], chosen, place)


def _for_view(value: Any, view: View, key: str) -> Any:
    if not isinstance(value, Mapping):
        return value
    for given in value:
        if given not in VIEWS:
            raise SurgdinoError(f"unknown view {key}.{given}", fix=nearest(str(given), VIEWS))
    if len(value) < len(VIEWS):
        raise SurgdinoError("a view is missing", place=key, expected=", ".join(VIEWS), found=", ".join(value))
    return value[view]
