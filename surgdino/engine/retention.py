"""Against forgetting: parts of the backbone stay fixed, and the others are pulled towards their initial values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from surgdino.backbone.low_rank import add_low_rank, is_low_rank
from surgdino.backbone.vit import Backbone
from surgdino.engine.processes import local, part_like
from surgdino.engine.settings import PretrainSettings
from surgdino.errors import SurgdinoError

_MASK_TOKEN = "mask_token"  # part of neither the initial nor the shipped weights


def prepare(backbone: Backbone, settings: PretrainSettings) -> None:
    """Add adapters and freeze what never learns; before the networks are copied and sharded."""
    if settings.frozen_blocks > backbone.depth:
        raise SurgdinoError(
            "unusable setting",
            place="train.frozen_blocks",
            expected=f"at most the {backbone.depth} blocks of the model",
            found=settings.frozen_blocks,
        )
    last = last_blocks(settings.tune)
    if last is not None and last > backbone.depth:
        expected = f"at most the {backbone.depth} blocks of the model"
        raise SurgdinoError("unusable setting", place="train.tune", expected=expected, found=settings.tune)
    if settings.tune.endswith("lora") != bool(settings.low_rank) and settings.tune != "all":
        fix = "use train.low_rank=8, for example" if settings.tune.endswith("lora") else "use train.tune=last2+lora"
        what = f"train.tune={settings.tune} does not go with train.low_rank={settings.low_rank}"
        raise SurgdinoError(what, fix=fix)
    if settings.low_rank:
        add_low_rank(backbone, settings.low_rank, settings.frozen_blocks, backbone.depth - (last or 0))
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_(is_trainable(backbone, name, settings))


def is_trainable(backbone: Backbone, name: str, settings: PretrainSettings) -> bool:
    """Whether a parameter of the backbone ever learns.

    Frozen blocks take the embeddings below them along. Beside adapters the norms learn, which are few and carry the
    statistics of the new images, and the mask token, which no natural-image checkpoint brings trained. `tune` chooses
    less: the attention's output projections (APLA, arXiv 2503.18873), or the last blocks and all norms, with adapters
    in the other blocks or without (ExPLoRA, Khanna et al. 2024, arXiv 2406.10973).
    """
    if name == _MASK_TOKEN:
        return True
    if settings.frozen_blocks and backbone.layer_id(name) <= settings.frozen_blocks:
        return False
    if settings.tune == "attn_proj":
        return ".attn.proj." in name
    if (last := last_blocks(settings.tune)) is not None:
        return backbone.layer_id(name) > backbone.depth - last or is_low_rank(name) or "norm" in name
    return not settings.low_rank or is_low_rank(name) or "norm" in name


def last_blocks(tune: str) -> int | None:
    """How many of the last blocks learn as a whole: 2 of `last2+lora`; None where it is not for that to say."""
    found = re.match(r"last(\d+)", tune)
    return int(found[1]) if found else None


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
