"""What the `method` sections of the DINO family share. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from surgdino.config import Share, Width
from surgdino.engine.settings import MethodSettings

# Cosines divided by less would leave the range of fp32's exponential.
Temperature = Annotated[float, Field(ge=0.02, le=100)]


@dataclass(frozen=True)
class PrototypeSettings(MethodSettings):
    """What the `method` sections of the family share."""

    student_temp: Temperature
    teacher_temp_start: Temperature
    teacher_temp: Temperature
    teacher_temp_warmup: Share
    prototypes: Annotated[int, Field(ge=1, le=2**20)]
    head_hidden: Width
    head_out: Width
    freeze_last_layer: Share

    def teacher_temperature(self, progress: float) -> float:
        """At `progress` in [0, 1] of the run."""
        return teacher_temperature(progress, self.teacher_temp_start, self.teacher_temp, self.teacher_temp_warmup)


def teacher_temperature(progress: float, start: float, end: float, warmup: float) -> float:
    """Linear from `start` to `end` over the share `warmup` of the run, then `end`; `progress` in [0, 1]."""
    return end if progress >= warmup else start + (end - start) * progress / warmup
