"""Schedules: pure functions of the step, so that a resumed run needs nothing but its step number."""

from __future__ import annotations

import math
from dataclasses import dataclass

from surgdino.engine.plan import TrainSettings


@dataclass(frozen=True)
class Rates:
    """What one step uses.

    Attributes:
        backbone_lr, head_lr: before each parameter group's own factor.
        weight_decay: of the groups that decay at all.
        momentum: of the teacher's update that ends the step.
        backbone_learns: False during the head's warm-up.
    """

    backbone_lr: float
    head_lr: float
    weight_decay: float
    momentum: float
    backbone_learns: bool


def cosine(step: int, steps: int, start: float, end: float) -> float:
    """Half a cosine from `start` at step 0 to `end` at the last of `steps` steps."""
    progress = min(max(step / max(steps - 1, 1), 0.0), 1.0)
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def warmup_cosine(step: int, steps: int, peak: float, end: float, warmup: int) -> float:
    """Linear from peak / warmup to `peak` in `warmup` steps, then a cosine to `end` at the last step."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return cosine(step - warmup, steps - warmup, peak, end)


def head_warmup(steps: int, settings: TrainSettings) -> int:
    """Steps for which the backbone stays frozen: as asked, but never more than a quarter of the run."""
    return min(settings.head_warmup_steps, steps // 4)


def rates_at(step: int, steps: int, settings: TrainSettings, momentum: tuple[float, float]) -> Rates:
    """The rates of 0-based `step` of `steps`.

    The head's learning rate warms up while the backbone is frozen; the backbone's own warm-up begins when it is
    released, so that a head which still points anywhere cannot pull trained features after it.

    Args:
        momentum: the teacher's at the start and at the end of the run.
    """
    frozen = head_warmup(steps, settings)
    warmup = steps // 10 if settings.warmup_steps is None else settings.warmup_steps
    warmup = min(warmup, steps - frozen)
    learns = step >= frozen
    backbone = warmup_cosine(step - frozen, steps - frozen, settings.lr, settings.min_lr, warmup) if learns else 0.0
    return Rates(
        backbone_lr=backbone,
        head_lr=warmup_cosine(step, steps, settings.lr, settings.min_lr, frozen or warmup),
        weight_decay=cosine(step, steps, settings.weight_decay, settings.weight_decay_end),
        momentum=cosine(step, steps, *momentum),
        backbone_learns=learns,
    )
