"""An entry of `phases`: what it may set, in a file that imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from surgdino.config import PositiveInt, typed
from surgdino.errors import SurgdinoError

# What a phase may change beside `crops` and `augment`: nothing that makes another model, objective or choice of frames.
CHANGED = (
    *("batch_size", "accumulate", "lr", "min_lr", "warmup_steps", "weight_decay", "weight_decay_end", "clip"),
    *("momentum", "momentum_end", "gram", "gram_scale", "gram_every", "rope_rescale"),
)
_FIXED = ("model", "method", "dataset", "data", "probe", "hardware", "run", "report")
_MAY = "steps, crops.*, augment.*, guide.NAME.weight, " + ", ".join(f"train.{key}" for key in CHANGED)


@dataclass(frozen=True)
class PhaseSettings:
    """An entry of `phases`; configs/pretrain.yaml explains it."""

    steps: PositiveInt
    crops: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    augment: dict[str, Any] = field(default_factory=dict)
    guide: dict[str, dict[str, Any]] = field(default_factory=dict)


def phase_entry(entry: Mapping[str, Any], place: str) -> PhaseSettings:
    """An entry, whose keys may be dotted.

    Raises:
        SurgdinoError: what a phase does not have or cannot change, or a value of the wrong type.
    """
    nested: dict[str, Any] = {}
    for dotted, value in entry.items():
        *sections, key = dotted.split(".")
        for section in reversed([*sections, key]):
            value = {section: value}
        nested = overlaid(nested, value)
    for section in nested:
        if section in _FIXED:
            raise fixed(next(key for key in entry if key.partition(".")[0] == section)).but(place=place)
    return typed(PhaseSettings, nested, place)


def fixed(key: str) -> SurgdinoError:
    """That a phase may not set this."""
    return SurgdinoError(f"a phase cannot change {key}", fix=f"it may change {_MAY}")


def overlaid(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the leaves that `changes` gives in their place."""
    out = dict(base)
    for key, value in changes.items():
        under = out.get(key)
        out[key] = overlaid(under, value) if isinstance(under, Mapping) and isinstance(value, Mapping) else value
    return out
