"""Which parameters of the backbone learn, and how fast: none, its last blocks, adapters, what `train.tune` says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from surgdino.backbone.vit import Backbone
from surgdino.engine.optim import grouped, layer_scale
from surgdino.engine.settings import Learning
from surgdino.engine.tuning import prepare
from surgdino.errors import SurgdinoError
from surgdino.tasks.settings import HeadTraining, Tuning
from surgdino.tasks.training.stage import resolve

LAST_BLOCKS = 4
RANK = 8  # of the adapters of `lora`, where train.low_rank says none


def select(backbone: Backbone, tuning: Tuning, train: HeadTraining) -> Backbone:
    """Let those parameters of the backbone learn that `tuning` names, and no others; the same backbone.

    `last4` is the last four blocks (all, where there are fewer) and the final norm; `lora` adapters and the norms;
    `attn_proj` the attention's output projections; `full` what `train.tune` and `train.low_rank` leave, as in
    pretraining. The mask token never learns: no patch is masked here.

    Raises:
        SurgdinoError: as `surgdino.engine.tuning.prepare`, or a part of a backbone that does not learn as a whole.
    """
    named = train.tune == "all" and (tuning == "lora" or (tuning == "attn_proj" and not train.low_rank))
    if tuning == "full" or named:
        tune, rank = learning_of(tuning, train)
        prepare(backbone, Learning(tune, rank, freeze_tokens=("mask",)))
        return backbone
    if train.tune != "all" or train.low_rank:
        found = f"backbone={tuning} train.tune={train.tune} train.low_rank={train.low_rank}"
        what = "train.tune and train.low_rank choose what learns of a whole backbone"
        raise SurgdinoError(what, expected="backbone=full", found=found, fix="use backbone=full, or leave them out")
    for name, parameter in backbone.named_parameters():
        learns = tuning != "frozen" and name != "mask_token"
        parameter.requires_grad_(learns and backbone.layer_id(name) > first_layer(backbone, tuning))
    return backbone


def learning_of(tuning: Tuning, train: HeadTraining) -> tuple[str, int]:
    """`train.tune` and `train.low_rank` that a tuning stands for, of one that is more than the user's own words."""
    if tuning == "lora":
        return "lora", train.low_rank or RANK
    return (tuning, 0) if tuning == "attn_proj" else (train.tune, train.low_rank)


def first_layer(backbone: Backbone, tuning: Tuning) -> int:
    """The deepest layer (as `Backbone.layer_id` counts) that stays as it came; -1 where none does."""
    return max(backbone.depth - LAST_BLOCKS, 0) if tuning == "last4" else -1


def head_groups(module: nn.Module) -> list[dict[str, Any]]:
    """Optimiser groups of a head: all at the full rate."""
    return grouped((name, p, 1.0) for name, p in module.named_parameters() if p.requires_grad)


def backbone_groups(backbone: Backbone, layer_decay: float) -> list[dict[str, Any]]:
    """Optimiser groups of what `select` lets learn of a backbone, see `layer_scale`; empty where it is frozen."""
    rows = [(name, p, layer_scale(backbone, name, layer_decay)) for name, p in backbone.named_parameters()]
    return grouped(row for row in rows if row[1].requires_grad)


def tuned_groups(
    head: nn.Module, backbone: Backbone, user: HeadTraining, *layers: Mapping[str, Any], head_factor: float
) -> list[dict[str, Any]]:
    """Optimiser groups of a head and the backbone under it.

    Args:
        user, layers: give `layer_decay`, as in `stage.resolve`.
        head_factor: how much faster the head learns, because it is fresh and the backbone was trained before.
    """
    groups = [{**group, "lr_scale": head_factor * group["lr_scale"]} for group in head_groups(head)]
    return groups + backbone_groups(backbone, resolve(user, *layers, overrides={}).layer_decay)
