"""The `train`, `hardware` and `log` sections of pretraining, and what every `method` and `guide` section has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from surgdino.config import (
    BelowOne,
    LearningRate,
    Names,
    NonNegative,
    NonNegativeInt,
    Positive,
    PositiveInt,
    Seed,
    Share,
    Text,
    Workers,
)
from surgdino.engine.logger import open_logger
from surgdino.errors import SurgdinoError

Tune = Annotated[
    str,
    Field(
        pattern=r"^(all|attn_proj|lora|last[1-9]\d{0,2}(\+lora)?)$",
        description="all, attn_proj, lora, last2 or last2+lora (any number of blocks)",
    ),
]
Token = Literal["class", "mask", "position", "register"]


@dataclass(frozen=True)
class Learning:
    """Which parameters of a backbone learn; configs/pretrain.yaml explains the keys of the same names."""

    tune: str
    low_rank: int
    frozen_blocks: int = 0
    freeze_tokens: tuple[Token, ...] = ()


@dataclass(frozen=True)
class PretrainSettings:
    """The `train` section; configs/pretrain.yaml explains its keys."""

    steps: PositiveInt | None
    epochs: Positive
    batch_size: PositiveInt
    seed: Seed
    lr: LearningRate
    min_lr: LearningRate
    warmup_steps: NonNegativeInt | None
    head_warmup_steps: NonNegativeInt
    layer_decay: Annotated[float, Field(gt=0, le=1)]
    weight_decay: NonNegative
    weight_decay_end: NonNegative
    clip: NonNegative | None
    patch_embed_lr: NonNegative
    momentum: Share | None
    momentum_end: Share | None
    checkpoint_every: PositiveInt
    checkpoint_share: Share
    checkpoint_minutes: Positive | None
    log_every: PositiveInt
    ship: Literal["teacher", "student"]
    ship_alpha: Annotated[float, Field(gt=0, le=1)]
    accumulate: PositiveInt
    drop_path: BelowOne
    rope_rescale: Annotated[float, Field(ge=1, le=16)] | None
    frozen_blocks: NonNegativeInt
    pull: NonNegative
    low_rank: NonNegativeInt
    gram: NonNegative
    gram_scale: Literal[1, 2]
    gram_every: PositiveInt | None
    tune: Tune
    freeze_tokens: tuple[Token, ...]
    until: Literal["steps", "probe"]
    patience: PositiveInt

    def __post_init__(self) -> None:
        if self.lr * self.pull >= 1:
            raise SurgdinoError(
                "unusable setting",
                place="train.pull",
                expected="below 1 / train.lr",
                found=self.pull,
                fix="change train.pull",
            )

    @property
    def learning(self) -> Learning:
        """What learns of the backbone."""
        return Learning(self.tune, self.low_rank, self.frozen_blocks, self.freeze_tokens)

    def total_steps(self, images: int) -> int:
        """Optimiser steps of the whole run over a store of `images` frames."""
        return self.steps if self.steps is not None else max(1, int(self.epochs * images / self.batch_size))


@dataclass(frozen=True)
class LogSettings:
    """The `log` section: which programs get the numbers of metrics.jsonl too, and what the run is called there."""

    to: Names = ()
    project: Text = "surgdino"
    name: Text | None = None

    def __post_init__(self) -> None:
        for name in self.to:
            open_logger(name)


@dataclass(frozen=True)
class HardwareSettings:
    """The `hardware` section, which may change how fast a run is, never what it computes (but for rounding).

    configs/hardware/auto.yaml explains its keys.
    """

    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    loader_workers: Workers | Literal["auto"]
    threads: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"]
    activation_checkpointing: bool
    fit: bool
    shard: bool
    compile: bool | Literal["auto"]


@dataclass(frozen=True)
class MethodSettings:
    """What every `method` section has; configs/method/NAME.yaml explains the keys of each method.

    Attributes:
        momentum, momentum_end: of the teacher, unless `train` sets them.
    """

    name: str
    momentum: Share
    momentum_end: Share


@dataclass(frozen=True)
class GuideSettings:
    """What every entry of the `guide` section has; configs/guide/NAME.yaml explains the keys of each.

    Attributes:
        name: the file in `surgdino/engine/guides/`.
        weight: its gradient at the class tokens, as a share of the objective's.
    """

    name: str
    weight: Share
