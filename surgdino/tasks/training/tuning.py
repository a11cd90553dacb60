"""Which parameters of the backbone learn, and how fast: none, the last four blocks, or all of them."""

from __future__ import annotations

from typing import Any, Literal

from torch import nn

from surgdino.backbone.vit import Backbone
from surgdino.engine.optim import decays

Tuning = Literal["frozen", "last4", "full"]
LAST_BLOCKS = 4


def select(backbone: Backbone, tuning: Tuning) -> Backbone:
    """Let those parameters of the backbone learn that `tuning` names, and no others; the same backbone.

    `last4` is the last four blocks (all, where there are fewer) and the final norm. The mask token never learns: no
    patch is masked here.
    """
    for name, parameter in backbone.named_parameters():
        learns = tuning != "frozen" and name != "mask_token"
        parameter.requires_grad_(learns and backbone.layer_id(name) > first_layer(backbone, tuning))
    return backbone


def first_layer(backbone: Backbone, tuning: Tuning) -> int:
    """The deepest layer (as `Backbone.layer_id` counts) that stays as it came; -1 where none does."""
    return max(backbone.depth - LAST_BLOCKS, 0) if tuning == "last4" else -1


def head_groups(module: nn.Module) -> list[dict[str, Any]]:
    """Optimiser groups of a head: all at the full rate; biases and norms do not decay."""
    return _grouped([(name, parameter, 1.0) for name, parameter in module.named_parameters()])


def backbone_groups(backbone: Backbone, layer_decay: float) -> list[dict[str, Any]]:
    """Optimiser groups of what `select` lets learn of a backbone; empty where it is frozen.

    Block k of K learns at layer_decay^(K + 1 - k) of the rate, the embeddings as block 0, the final norm at the full
    rate.
    """
    rows = []
    for name, parameter in backbone.named_parameters():
        scale = layer_decay ** (backbone.depth + 1 - backbone.layer_id(name))
        rows.append((name, parameter, scale))
    return _grouped(rows)


def _grouped(rows: list[tuple[str, nn.Parameter, float]]) -> list[dict[str, Any]]:
    groups: dict[tuple[float, bool], dict[str, Any]] = {}
    for name, parameter, scale in rows:
        if parameter.requires_grad:
            key = (scale, decays(name, parameter))
            groups.setdefault(key, {"params": [], "lr_scale": scale, "decays": key[1]})["params"].append(parameter)
    return list(groups.values())
