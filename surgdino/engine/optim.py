"""Schedules, AdamW with layerwise learning rates, and a step that a bad gradient cannot spoil.

The schedules are pure functions of the step: a resumed run needs only its step number.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from surgdino.backbone.vit import Backbone
from surgdino.engine.loss_scale import LossScale
from surgdino.engine.method import Method
from surgdino.engine.settings import PretrainSettings

_TOKENS = ("pos_embed", "cls_token", "reg_token", "mask_token")


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


def rates_at(step: int, steps: int, settings: PretrainSettings, momentum: tuple[float, float]) -> Rates:
    """The rates of 0-based `step` of `steps`.

    The head's learning rate warms up while the backbone is frozen; the backbone's own warm-up begins when it is
    released, so that an untrained head does not damage trained features.

    Args:
        momentum: the teacher's at the start and at the end of the run.
    """
    frozen = min(settings.head_warmup_steps, steps // 4)  # never more than a quarter of the run
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


@dataclass
class Update:
    """What an optimiser step did, as tensors on the device so that the host does not wait.

    Attributes:
        gradient_norm: over all parameters of all processes, before clipping.
        skipped: 1.0 where the gradient was not finite and nothing was changed, else 0.0.
        overflowed: 1.0 where that was for want of a smaller loss scale, which it now has; None without scaling.
        loss_scale: of the step; None without scaling.
    """

    gradient_norm: Tensor
    skipped: Tensor
    overflowed: Tensor | None = None
    loss_scale: Tensor | None = None

    @property
    def bad(self) -> Tensor:
        """1.0 where a step was lost, which ought not to happen."""
        return self.skipped if self.overflowed is None else self.skipped - self.overflowed


def make_optimizer(network: Method, settings: PretrainSettings) -> torch.optim.AdamW:
    """AdamW (0.9, 0.999), fused, over `parameter_groups`."""
    groups = parameter_groups(network, settings.layer_decay, settings.patch_embed_lr)
    return torch.optim.AdamW(groups, lr=settings.lr, betas=(0.9, 0.999), fused=True)


def parameter_groups(network: Method, layer_decay: float, patch_embed_lr: float) -> list[dict[str, Any]]:
    """The backbone's groups (`layer_scale`; the patch embedding slower by `patch_embed_lr` once more) and the heads'.

    Each carries `part`, `backbone` or `head`.
    """
    of_backbone = []
    for name, parameter in network.backbone.named_parameters():
        scale = layer_scale(network.backbone, name, layer_decay)
        of_backbone.append((name, parameter, scale * patch_embed_lr if "patch_embed" in name else scale))
    heads = [network.head] if network.guides is None else [network.head, network.guides]
    of_head = [(name, parameter, 1.0) for head in heads for name, parameter in head.named_parameters()]
    return grouped(of_backbone, part="backbone") + grouped(of_head, part="head")


def layer_scale(backbone: Backbone, name: str, layer_decay: float) -> float:
    """Factor on the learning rate of a parameter: layer_decay^(K + 1 - k) for block k of K.

    The embeddings are block 0; the final norm learns at the full rate.
    """
    return layer_decay ** (backbone.depth + 1 - backbone.layer_id(name))


def grouped(rows: Iterable[tuple[str, nn.Parameter, float]], **labels: Any) -> list[dict[str, Any]]:
    """Optimiser groups of parameters with the same factor on the learning rate and the same right to decay.

    Args:
        rows: (name, parameter, factor).
        labels: further entries of every group.
    """
    groups: dict[tuple[float, bool], dict[str, Any]] = {}
    for name, parameter, scale in rows:
        key = (scale, decays(name, parameter))
        group = {"params": [], **labels, "lr_scale": scale, "decays": key[1]}
        groups.setdefault(key, group)["params"].append(parameter)
    return list(groups.values())


def decays(name: str, parameter: Tensor) -> bool:
    """Whether weight decay applies: to matrices that are not learned tokens or positions."""
    return parameter.ndim > 1 and not any(token in name for token in _TOKENS)


def set_rates(optimizer: torch.optim.Optimizer, rates: Rates) -> None:
    """Write a step's rates into every group."""
    for group in optimizer.param_groups:
        rate = rates.backbone_lr if group["part"] == "backbone" else rates.head_lr
        group["lr"] = rate * group["lr_scale"]
        group["weight_decay"] = rates.weight_decay if group["decays"] else 0.0


def apply_gradients(
    optimizer: torch.optim.Optimizer, clip: float | None, loss_scale: LossScale | None = None
) -> Update:
    """Clip the global norm, step, and forget the gradients; a gradient that is not finite changes nothing.

    Both happen inside the fused optimiser, on the device: it divides by `grad_scale` and skips where `found_inf` is 1,
    as it does under a gradient scaler. Nothing waits, and the gradients are not read and written once more.

    Args:
        loss_scale: that the gradients carry; the same division takes it out.
    """
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
    norm = norm if loss_scale is None else norm / loss_scale.value
    skipped = (~torch.isfinite(norm)).float()
    shrink = (norm / clip).clamp(min=1.0) if clip else None
    scaled: Any = optimizer  # the two attributes are the gradient scaler's way in, and not declared
    scaled.found_inf = skipped
    scaled.grad_scale = shrink if loss_scale is None else loss_scale.value * (1.0 if shrink is None else shrink)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    if loss_scale is None:
        return Update(norm, skipped)
    update = Update(norm, skipped, loss_scale.overflowed(skipped), loss_scale.value)
    loss_scale.update(skipped)
    return update
