"""Networks in several processes: a copy each whose gradients are averaged (DDP), or a part each (FSDP2)."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from surgdino import distributed
from surgdino.backbone.low_rank import has_low_rank, merged
from surgdino.backbone.vit import Backbone, build_backbone
from surgdino.engine.method import Method
from surgdino.engine.processes import whole


def parallelize(student: Method, teacher: Method, *, shard: bool, device: torch.device) -> nn.Module:
    """Turn networks that are the same in every process into one student and one teacher of all processes.

    Call it before an optimiser is made: sharding replaces the parameters.

    Returns:
        What the student's `forward` is called through: the student itself, or what wraps it.
    """
    if distributed.world_size() == 1:
        return student
    if shard:
        # The teacher has no backward pass, which is what frees the student's gathered weights.
        _shard(student, device)
        _shard(teacher, device, reshard_after_forward=True)
        return student
    # Parameters may be unused for a while: the frozen backbone, a method's mask token or prototypes. DDP has to look
    # for them, and warns once where a method uses all.
    return DistributedDataParallel(student, find_unused_parameters=True, gradient_as_bucket_view=True)


def _shard(network: Method, device: torch.device, **options: Any) -> None:
    mesh = init_device_mesh(device.type, (distributed.world_size(),))
    for block in network.backbone.vit.blocks:
        fully_shard(block, mesh=mesh)
        block.register_forward_pre_hook(_own_input)
    fully_shard(network, mesh=mesh, **options)
    for entry in ("targets", "group_features"):  # beside `forward`
        register_fsdp_forward_method(network, entry)


def _own_input(block: nn.Module, arguments: tuple) -> tuple:
    """FSDP hands a block a view of its input, and autograd forbids to write into that, which packed blocks do."""
    return (arguments[0].clone(), *arguments[1:])


def without_exchange(student: nn.Module) -> AbstractContextManager:
    """Around a backward pass whose gradients only add up in this process; sharded ones are exchanged every time."""
    return student.no_sync() if isinstance(student, DistributedDataParallel) else nullcontext()


def whole_backbone(network: Method) -> Backbone:
    """The backbone in one piece, as it is shipped: itself, or a copy where it is sharded or has adapters.

    For all processes to call.
    """
    backbone = network.backbone
    if not isinstance(backbone.mask_token, DTensor) and not has_low_rank(backbone):
        return backbone
    copy = build_backbone(backbone.settings, drop_path=0.0)
    copy.load_state_dict(merged(whole(backbone.state_dict())))
    return copy.to(backbone.mask_token.device)
