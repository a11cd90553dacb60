"""AdamW with layerwise learning rates, and one optimiser step that a bad gradient cannot spoil."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from surgdino.engine.plan import TrainSettings
from surgdino.engine.schedules import Rates
from surgdino.engine.teacher import Network

_TOKENS = ("pos_embed", "cls_token", "reg_token", "mask_token")


@dataclass
class Update:
    """What an optimiser step did, as tensors on the device so that nobody waits for them.

    Attributes:
        gradient_norm: over all parameters of all processes, before clipping.
        skipped: 1.0 where the gradient was not finite and nothing was changed, else 0.0.
    """

    gradient_norm: Tensor
    skipped: Tensor


def make_optimizer(network: Network, settings: TrainSettings) -> torch.optim.AdamW:
    """AdamW (0.9, 0.999), fused, over `parameter_groups`."""
    groups = parameter_groups(network, settings.layer_decay, settings.patch_embed_lr)
    return torch.optim.AdamW(groups, lr=settings.lr, betas=(0.9, 0.999), fused=True)


def parameter_groups(network: Network, layer_decay: float, patch_embed_lr: float) -> list[dict]:
    """Parameters with the same factor on the learning rate and the same right to decay, together.

    Block k of K learns at layer_decay^(K + 1 - k) of the rate, embeddings as block 0, the patch embedding slower by
    `patch_embed_lr` once more, the final norm and the heads at the full rate. Biases, norms, layer scales and the
    learned tokens and positions do not decay.
    """
    groups: dict[tuple, dict] = {}
    for name, parameter in network.named_parameters():
        part, _, rest = name.partition(".")
        scale = _lr_scale(network, rest, layer_decay, patch_embed_lr) if part == "backbone" else 1.0
        group = {"params": [], "part": part, "lr_scale": scale, "decays": decays(name, parameter)}
        groups.setdefault((part, scale, group["decays"]), group)["params"].append(parameter)
    return list(groups.values())


def decays(name: str, parameter: Tensor) -> bool:
    """Whether weight decay applies: to matrices that are not learned tokens or positions."""
    return parameter.ndim > 1 and not any(token in name for token in _TOKENS)


def _lr_scale(network: Network, name: str, layer_decay: float, patch_embed_lr: float) -> float:
    backbone = network.backbone
    scale = layer_decay ** (backbone.depth + 1 - backbone.layer_id(name))
    return scale * patch_embed_lr if "patch_embed" in name else scale


def set_rates(optimizer: torch.optim.Optimizer, rates: Rates) -> None:
    """Write a step's rates into every group."""
    for group in optimizer.param_groups:
        rate = rates.backbone_lr if group["part"] == "backbone" else rates.head_lr
        group["lr"] = rate * group["lr_scale"]
        group["weight_decay"] = rates.weight_decay if group["decays"] else 0.0


def apply_gradients(optimizer: torch.optim.Optimizer, clip: float | None) -> Update:
    """Clip the global norm, step, and forget the gradients; a gradient that is not finite changes nothing.

    Both happen inside the fused optimiser, on the device: it divides by `grad_scale` and skips where `found_inf` is 1,
    as it does under a gradient scaler. Nothing waits, and the gradients are not read and written once more.
    """
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
    skipped = (~torch.isfinite(norm)).float()
    scaled: Any = optimizer  # the two attributes are the gradient scaler's way in, and not declared
    scaled.found_inf = skipped
    scaled.grad_scale = (norm / clip).clamp(min=1.0) if clip else None
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return Update(norm, skipped)
