"""Networks in several processes: a copy each whose gradients are averaged (DDP), or a part each (FSDP2)."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from surgdino import distributed
from surgdino.backbone.low_rank import has_low_rank, merged
from surgdino.backbone.vit import Backbone, build_backbone
from surgdino.engine.hardware import Hardware
from surgdino.engine.method import Method
from surgdino.engine.processes import ProcessGroup, whole


class Copies:
    """A student that every process has a copy of: its gradients are averaged over the processes (DDP).

    DDP wants to know which parameters will have a gradient, and to search the graph for them costs time in every step.
    But they change twice at most: when the backbone is released after the head's warm-up, and when a method stops to
    freeze its prototypes. So the first step with other parameters that learn averages gradient by gradient, which shows
    which are used; then DDP takes over, and searches only where a method leaves some of them out.
    """

    def __init__(self, student: Method, processes: ProcessGroup) -> None:
        self.student, self.processes = student, processes
        self.wrapped: DistributedDataParallel | None = None
        self._learn: tuple[bool, ...] = ()

    def __call__(self, *arguments: Any) -> Any:
        """The student's `forward`."""
        learn = tuple(parameter.requires_grad for parameter in self.student.parameters())
        if learn != self._learn:
            self._learn, self.wrapped = learn, None
        return (self.wrapped or self.student)(*arguments)

    def no_sync(self) -> AbstractContextManager:
        """Around a backward pass whose gradients only add up in this process."""
        return self.wrapped.no_sync() if self.wrapped else nullcontext()

    @torch.no_grad()
    def finish(self) -> None:
        """After the last backward pass of a step; all processes call it."""
        if self.wrapped:
            return
        world = self.processes.world
        learning = [parameter for parameter in self.student.parameters() if parameter.requires_grad]
        users = self.processes.sum(torch.tensor([float(parameter.grad is not None) for parameter in learning])).tolist()
        for parameter, count in zip(learning, users, strict=True):
            if count:
                parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.div_(world)
                dist.all_reduce(parameter.grad)
        self.wrapped = DistributedDataParallel(
            self.student, find_unused_parameters=min(users) < world, gradient_as_bucket_view=True
        )


def parallelize(
    student: Method, teacher: Method, processes: ProcessGroup, *, shard: bool, hardware: Hardware
) -> Method | Copies:
    """Turn networks that are the same in every process into one student and one teacher of all processes.

    Call it before an optimiser is made: sharding replaces the parameters.

    Returns:
        What the student's `forward` is called through: the student itself, or what exchanges its gradients.
    """
    if processes.world == 1:
        return student
    if not shard:
        return Copies(student, processes)
    # The teacher has no backward pass, which is what frees the student's gathered weights.
    _shard(student, hardware)
    _shard(teacher, hardware, reshard_after_forward=True)
    return student


def _shard(network: Method, hardware: Hardware, **options: Any) -> None:
    mesh = init_device_mesh(hardware.device.type, (distributed.world_size(),))
    # Where blocks compute in bf16 throughout (surgdino.backbone.packed), their weights are gathered in it.
    bf16 = hardware.device.type == "cuda" and hardware.dtype == torch.bfloat16 and network.backbone.packs
    policy = MixedPrecisionPolicy(torch.bfloat16, reduce_dtype=torch.float32) if bf16 else MixedPrecisionPolicy()
    blocks = list(network.backbone.vit.blocks)
    for block in blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy)
        block.register_forward_pre_hook(_own_input)
    for block, following in pairwise(blocks):  # gathered while the one before it computes
        block.set_modules_to_forward_prefetch([following])
        following.set_modules_to_backward_prefetch([block])
    fully_shard(network, mesh=mesh, **options)
    for entry in ("targets", "ahead", "class_tokens"):  # beside `forward`
        register_fsdp_forward_method(network, entry)


def _own_input(block: nn.Module, arguments: tuple) -> tuple:
    """FSDP hands a block a view of its input, and autograd forbids to write into that, which packed blocks do."""
    return (arguments[0].clone(), *arguments[1:])


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
