"""Temporal models over the features of a whole video, one file each, discovered by file name: `task.temporal=NAME`.

T frames of one video, D feature width, C classes. A temporal model is a module with
    DEFAULTS   {"layers": ..., "width": ..., "dropout": ...}, the values it takes where the task's settings are null
    build      (features, classes, sizes: Sizes) -> nn.Module with
        online     whether what it says of a frame depends on that frame and earlier ones alone
        forward    (features [T, D]) -> logits [T, C] of each of its stages, the last being the answer
        advance    (features [n, D], state or None) -> (logits of each stage, state): the next n frames of a video whose
                   past is in `state`; None at its beginning. Online models alone. The state's size is bounded, and
                   frames may come in pieces of any length: the answer is the same, up to the rounding of sums.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from importlib import import_module
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from surgdino.errors import SurgdinoError, nearest
from surgdino.paths import names_in

NONE = "none"  # every frame by itself


@dataclass(frozen=True)
class TemporalSettings:
    """How large a temporal model is; null takes its own default.

    Attributes:
        layers: of a stage.
        width: feature maps of a convolution, or the width of a transformer's tokens.
        window: frames that a transformer's layer looks at, its own included; the convolutions' reach follows from their
            number.
        dropout: share of activations left out in training.
    """

    layers: int | None = None
    width: int | None = None
    window: int = 256
    dropout: float | None = None


@dataclass(frozen=True)
class Sizes:
    """`TemporalSettings` with nothing left open."""

    layers: int
    width: int
    window: int
    dropout: float


def temporal_names() -> list[str]:
    """What `task.temporal` takes."""
    return [NONE, *names_in(Path(__file__).parent, ".py")]


def open_temporal(name: str) -> ModuleType | None:
    """The module of that name; None for `none`.

    Raises:
        SurgdinoError: no such temporal model.
    """
    if name not in temporal_names():
        raise SurgdinoError(f"there is no task.temporal={name}", fix=nearest(name, temporal_names()))
    return None if name == NONE else import_module(f"{__name__}.{name}")


def build_temporal(name: str, features: int, classes: int, settings: TemporalSettings) -> nn.Module | None:
    """A fresh temporal model, None for `none`.

    Raises:
        SurgdinoError: no such model, or sizes that it cannot have.
    """
    module = open_temporal(name)
    if module is None:
        return None
    given = {field.name: getattr(settings, field.name) for field in fields(settings)}
    sizes = Sizes(**{**module.DEFAULTS, **{key: value for key, value in given.items() if value is not None}})
    for key, holds, expected in (
        ("layers", 1 <= sizes.layers <= 16, "1 to 16"),
        ("width", sizes.width >= 1, "at least 1"),
        ("window", sizes.window >= 2, "at least 2 frames"),
        ("dropout", 0 <= sizes.dropout < 1, "0 or more, less than 1"),
    ):
        if not holds:
            raise SurgdinoError(f"task.{key} cannot be used", expected=expected, found=getattr(sizes, key))
    return module.build(features, classes, sizes)


@torch.inference_mode()
def run_through(model: nn.Module, blocks: Iterable[Tensor]) -> Iterator[Tensor]:
    """Class probabilities of one video whose features come in blocks.

    An online model answers block by block, so that memory stays flat in the video's length; an offline one must see the
    end first, and all features (not the frames) are held for it.

    Args:
        model: a temporal model in evaluation mode.
        blocks: float [n, D] each, in the order of the frames.

    Yields:
        float [n, C], together as many rows as there were frames.
    """
    if model.online:
        state = None
        for block in blocks:
            logits, state = model.advance(block, state)  # type: ignore[operator]
            yield logits[-1].float().softmax(1)
    elif held := list(blocks):
        yield model(torch.cat(held))[-1].float().softmax(1)
