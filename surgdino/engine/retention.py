"""Against forgetting: what learns of a backbone is pulled towards its initial values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from surgdino.backbone.vit import Backbone
from surgdino.engine.processes import local, part_like
from surgdino.engine.settings import PretrainSettings

_MASK_TOKEN = "mask_token"  # part of neither the initial nor the shipped weights


@dataclass
class Retention:
    """Which parameters of a student's backbone learn, and their initial values.

    Attributes:
        trainable: its parameters that ever learn, by name.
        pull: strength; 0 keeps nothing.
        initial: name -> initial value of every parameter that is pulled.
    """

    trainable: dict[str, nn.Parameter]
    pull: float = 0.0
    initial: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, backbone: Backbone, settings: PretrainSettings, saved: Mapping[str, Tensor] | None = None) -> Retention:
        """Of a backbone that is already sharded.

        Args:
            saved: `initial` of the run that is resumed, in one piece; None for a run that begins.
        """
        trainable = {name: p for name, p in backbone.named_parameters() if p.requires_grad}
        initial = {}
        if settings.pull:
            pulled = {name: p for name, p in trainable.items() if name != _MASK_TOKEN}
            initial = {
                name: p.detach().clone() if saved is None else part_like(saved[name], p).to(p.device)
                for name, p in pulled.items()
            }
        return cls(trainable, settings.pull, initial)

    def set_trainable(self, now: bool) -> None:
        """Whether they learn in this step: not during the head's warm-up."""
        for parameter in self.trainable.values():
            parameter.requires_grad_(now)

    @torch.no_grad()
    def pull_back(self, optimizer: torch.optim.Optimizer, skipped: Tensor) -> None:
        """theta <- theta - lr * pull * (theta - theta_0), lr being each parameter's own in this step.

        L2-SP (Li et al. 2018, arXiv 1802.01483), decoupled from Adam's moments as AdamW's decay is (Loshchilov & Hutter
        2019): as a loss term, it would be divided by them, and weights with large gradients would hardly feel it.

        Args:
            skipped: 1.0 where the optimiser changed nothing in this step, on the device; then nothing is pulled either.
        """
        if not self.pull:
            return
        start_of = {id(self.trainable[name]): start for name, start in self.initial.items()}
        for group in optimizer.param_groups:
            pulled = [p for p in group["params"] if id(p) in start_of]
            if pulled and group["lr"]:
                weights = local(pulled)
                way = torch._foreach_sub(local(start_of[id(p)] for p in pulled), weights)
                torch._foreach_mul_(way, (1 - skipped) * (group["lr"] * self.pull))
                torch._foreach_add_(weights, way)
