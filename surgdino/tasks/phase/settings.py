"""The settings of task=phase."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from surgdino import discovery
from surgdino.config import BelowOne, Hidden, LearningRate, Names, NonNegative, Positive, PositiveInt
from surgdino.errors import SurgdinoError, nearest
from surgdino.tasks.settings import Tokens

NONE = "none"  # every frame by itself
OFFLINE = "_offline"
AUTO = ("auto", "auto_offline")  # what is best on held-out operations, see `surgdino.tasks.phase.choice`
Post = Literal["none", "mean", "mean_offline", "order", "order_offline"]


@dataclass(frozen=True)
class PhaseSettings:
    """Key for key what configs/task/phase.yaml explains."""

    name: str
    labels: Literal["phase", "step"]
    temporal: str
    candidates: Annotated[Names, Field(min_length=1, max_length=20)]
    tokens: Tokens
    pool_heads: Annotated[int, Field(ge=1, le=64)]
    align: bool
    hidden: Hidden
    balance: Literal["median-frequency", "none"]
    smoothing: NonNegative
    layers: Annotated[int, Field(ge=1, le=20)] | None
    width: Annotated[int, Field(ge=1, le=4096)] | None
    window: PositiveInt
    dropout: BelowOne | None
    temporal_epochs: Positive | None
    temporal_lr: LearningRate | None
    post: Post
    post_frames: Annotated[int, Field(ge=1, le=10_000)]

    def __post_init__(self) -> None:
        check_temporal(self.temporal)
        for name in self.candidates:
            if name in AUTO or name == NONE or name.endswith(OFFLINE):
                expected = "names of online models; auto_offline takes their offline variants, none is always tried"
                raise SurgdinoError("task.candidates cannot be used", expected=expected, found=name)
            check_temporal(name)

    def tried(self) -> list[str]:
        """What `auto` tries beside the classifier of single frames."""
        return [name + self.temporal.removeprefix(AUTO[0]) for name in dict.fromkeys(self.candidates)]


def temporal_names() -> list[str]:
    """What `task.temporal` takes."""
    return [
        NONE,
        *sorted(name + ending for name in discovery.names("surgdino.tasks.phase.temporal") for ending in ("", OFFLINE)),
    ]


def check_temporal(name: str) -> None:
    """Refuse a name that is none of `temporal_names()`, and no wish that one be chosen."""
    known = [*AUTO, *temporal_names()]
    if name not in known:
        raise SurgdinoError(f"there is no task.temporal={name}", fix=nearest(name, known))
