"""What all tasks take: how a head is trained, what learns of the backbone, how predictions are averaged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from surgdino.config import (
    BelowOne,
    LearningRate,
    NonNegative,
    NonNegativeInt,
    Positive,
    PositiveInt,
    Range,
    Seed,
    Share,
)
from surgdino.engine.settings import Tune
from surgdino.errors import SurgdinoError

Tuning = Literal["frozen", "last4", "lora", "attn_proj", "full"]
Averaging = Literal["none", "flips", "scales", "scales+flips"]
Smoothing = Literal["none", "propagation"]
# What is classified: the class token, the mean of the patch tokens beside it, or what a learned query pooled of them.
Tokens = Literal["cls", "cls+mean", "attentive"]
MultilabelLoss = Literal["bce", "focal", "asymmetric"]


@dataclass(frozen=True)
class HeadTraining:
    """The `train` section of configs/finetune.yaml, which explains every key; None takes the task's or stage's own."""

    epochs: Positive | None
    steps: PositiveInt | None
    batch_size: PositiveInt | None
    lr: LearningRate | None
    min_lr: LearningRate | None
    weight_decay: NonNegative | None
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None
    warmup: Share | None
    clip: NonNegative | None
    drop_path: BelowOne | None
    patience: NonNegativeInt | None
    validate_every: PositiveInt | None
    crop_scale: Range | None
    tune: Tune
    low_rank: NonNegativeInt
    seed: Seed
    seeds: Annotated[int, Field(ge=1, le=100)] | Annotated[tuple[Seed, ...], Field(min_length=1, max_length=100)] | None
    checkpoint_every: PositiveInt
    log_every: PositiveInt

    def __post_init__(self) -> None:
        if isinstance(self.seeds, tuple) and len(set(self.seeds)) < len(self.seeds):
            raise SurgdinoError("train.seeds cannot be used", expected="seeds that differ", found=list(self.seeds))
        low, high = self.crop_scale or (1, 1)
        if not 0 < low <= high:
            expected = "[low, high], more than 0"
            raise SurgdinoError("train.crop_scale cannot be used", expected=expected, found=list(self.crop_scale or ()))
