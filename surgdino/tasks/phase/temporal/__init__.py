"""Temporal models over the features of a whole video, one file each, discovered by file name: `task.temporal=NAME`.

Every model comes in two: NAME is online, NAME_offline also looks ahead, for videos that have ended.
T frames of one video, D feature width, C classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from surgdino import discovery
from surgdino.errors import SurgdinoError
from surgdino.tasks.phase.settings import AUTO, NONE, OFFLINE, check_temporal


@dataclass(frozen=True)
class Sizes:
    """How large a temporal model is.

    Attributes:
        layers: of a stage.
        width: feature maps of a convolution, or the width of a transformer's tokens.
        window: frames that a transformer's layer looks at, its own included; the convolutions' reach follows from their
            number.
        dropout: share of activations left out in training.
    """

    layers: int
    width: int
    window: int
    dropout: float

    def __post_init__(self) -> None:
        for key, holds, expected in (
            ("layers", 1 <= self.layers <= 16, "1 to 16"),
            ("width", self.width >= 1, "at least 1"),
            ("window", self.window >= 2, "at least 2 frames"),
            ("dropout", 0 <= self.dropout < 1, "0 or more, less than 1"),
        ):
            if not holds:
                raise SurgdinoError(f"task.{key} cannot be used", expected=expected, found=getattr(self, key))


class TemporalModel(nn.Module, ABC):
    """Logits of every frame of a video from the features of all frames.

    Attributes:
        DEFAULTS: of layers, width and dropout.
        TRAINING: of the `train` section, where it wants something else than the stage.
        online: whether what it says of a frame depends on that frame and earlier ones alone.
    """

    DEFAULTS: ClassVar[Mapping[str, Any]]
    TRAINING: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, features: int, classes: int, sizes: Sizes, *, online: bool) -> None:
        super().__init__()
        self.online = online

    @abstractmethod
    def run(self, features: Tensor, state: Any) -> tuple[list[Tensor], Any]:
        """Logits [n, C] of each stage, the last being the answer, for the next n frames, features [n, D], of a video.

        Args:
            state: what the frames before left, of bounded size; None at the beginning. Online, frames may come in
                pieces of any length: the answer is the same, up to the rounding of sums.
        """

    def forward(self, features: Tensor) -> list[Tensor]:
        """Logits [T, C] of each stage for the features [T, D] of a whole video."""
        return self.run(features, None)[0]

    def advance(self, features: Tensor, state: Any) -> tuple[list[Tensor], Any]:
        """`run` on a piece of a video, of online models alone."""
        if not self.online:
            raise ValueError("an offline model has to see the whole video")
        return self.run(features, state)


def build_temporal(
    name: str,
    features: int,
    classes: int,
    *,
    layers: int | None = None,
    width: int | None = None,
    window: int = 256,
    dropout: float | None = None,
) -> TemporalModel | None:
    """A fresh temporal model, None for `none` and what is still to be chosen.

    What is None of its sizes is its own default.

    Raises:
        SurgdinoError: no such model, or sizes that it cannot have.
    """
    check_temporal(name)
    if name in (NONE, *AUTO):
        return None
    module = discovery.load(__name__, name.removesuffix(OFFLINE), "task.temporal")
    kind = discovery.defined(module, TemporalModel)  # type: ignore[type-abstract]
    given = {"layers": layers, "width": width, "window": window, "dropout": dropout}
    sizes = Sizes(**{**kind.DEFAULTS, **{key: value for key, value in given.items() if value is not None}})
    return kind(features, classes, sizes, online=not name.endswith(OFFLINE))


def kept(seen: Tensor, count: int) -> Tensor:
    """The last `count` along the third dimension, from which the frames that follow go on; in an export, where none do,
    all: how many there are is not known there."""
    return seen if torch.compiler.is_exporting() else seen[:, :, -count:].detach()


@torch.no_grad()
def run_through(model: TemporalModel, blocks: Iterable[Tensor]) -> Iterator[Tensor]:
    """Class probabilities of one video whose features come in blocks.

    An online model answers block by block, so that memory stays flat in the video's length; an offline one must see the
    end first, and all features (not the frames) are held for it.

    Args:
        model: in evaluation mode.
        blocks: float [n, D] each, in the order of the frames.

    Yields:
        float [n, C], together as many rows as there were frames.
    """
    if model.online:
        state = None
        for block in blocks:
            logits, state = model.advance(block, state)
            yield logits[-1].float().softmax(1)
    elif held := list(blocks):
        yield model(torch.cat(held))[-1].float().softmax(1)
