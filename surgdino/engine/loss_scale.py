"""The loss scale of fp16, whose smallest numbers are larger than many gradients."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

FIRST, LEAST, MOST = 2.0**16, 1.0, 2.0**24
GOOD_STEPS = 2000


class LossScale:
    """What the loss is multiplied by before the backward pass: a power of two, found while training.

    It halves with every step whose gradient is not finite, and doubles after `GOOD_STEPS` without one (Micikevicius et
    al. 2018, arXiv 1710.03740). Nothing is read back from the device.

    Attributes:
        value: float32 [], the scale, from `LEAST` to `MOST`.
        good: float32 [], finite steps since it last changed.
    """

    def __init__(self, device: torch.device) -> None:
        self.value = torch.full((), FIRST, device=device)
        self.good = torch.zeros((), device=device)

    @classmethod
    def of(cls, dtype: torch.dtype, device: torch.device) -> LossScale | None:
        """For fp16; the other types need none."""
        return cls(device) if dtype == torch.float16 else None

    def scaled(self, loss: Tensor) -> Tensor:
        """The loss to call `backward` of."""
        return loss * self.value

    def overflowed(self, skipped: Tensor) -> Tensor:
        """1.0 where a step was skipped and a smaller scale may help, else 0.0."""
        return skipped * (self.value > LEAST)

    def update(self, skipped: Tensor) -> None:
        """After a step; `skipped` is 1.0 where its gradient was not finite, else 0.0."""
        good = (self.good + 1) * (1 - skipped)
        grown = (good >= GOOD_STEPS).float()
        self.value = (self.value * (1 + grown) * (1 - skipped / 2)).clamp(LEAST, MOST)
        self.good = good * (1 - grown)

    def state_dict(self) -> dict[str, Tensor]:
        """On the device; later steps make other tensors."""
        return {"value": self.value, "good": self.good}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on with a saved one."""
        device = self.value.device
        self.value, self.good = state["value"].to(device), state["good"].to(device)
