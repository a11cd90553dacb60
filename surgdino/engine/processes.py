"""What the processes of a run exchange; in a single process every answer is its own.

Symbols: B images in the global batch, W processes, K micro-batches a process, b = B / (W K) images a micro-batch.
Global image i belongs to process i // (B / W) and there to micro-batch (i % (B / W)) // b.

A term that couples images is computed in each of the W K places over the whole batch, each time with the gradient of
the b images there alone. The loop takes the mean over places, so the term enters the loss times `share` = W K: the sum
of those partial gradients is the gradient of the whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from surgdino import distributed

# The same function under its name from torch 2.13 on, where the old one warns.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor


@dataclass(frozen=True)
class ProcessGroup:
    """All processes of the run. Every process must make the same calls in the same order.

    Attributes:
        rank, world: this process's number among W.
    """

    rank: int = field(default_factory=distributed.rank)
    world: int = field(default_factory=distributed.world_size)

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over processes, without gradient; same shape."""
        if self.world == 1:
            return tensor.detach()
        total = tensor.detach().clone()
        dist.all_reduce(total)
        return total

    def mean(self, tensor: Tensor) -> Tensor:
        """The mean over processes, without gradient; same shape."""
        return self.sum(tensor) / self.world

    def gather_views(self, tensor: Tensor) -> Tensor:
        """[V, n, ...] of this process -> [V, W n, ...] in the order of the global batch, without gradient."""
        if self.world == 1:
            return tensor.detach()
        shares = tensor.new_empty(self.world * len(tensor), *tensor.shape[1:])
        _all_gather(shares, tensor.detach().contiguous())
        return shares.unflatten(0, (self.world, -1)).transpose(0, 1).flatten(1, 2)

    def max(self, value: float) -> float:
        """The largest over processes. Exchanged between CPUs, so it waits for no GPU."""
        if self.world == 1:
            return value
        largest = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        return largest.item()

    def any(self, holds: bool) -> bool:
        """Whether it holds in one process at least."""
        return bool(self.max(float(holds)))


@dataclass(frozen=True)
class Pool:
    """What one micro-batch may know of the others.

    Attributes:
        share: W K where groups reach beyond a micro-batch, else 1: then nothing is gathered.
        place: this micro-batch's number among the W K.
        seen: [2, B, ...] by name, from a pass without gradient over all micro-batches; None where K is 1; the other
            processes' features are then gathered when needed.
        operation: int64 [2, b or B], of the images that `complete` gives; needed where `centred` is not 0.
        centred: share of its operation's mean that is taken off each feature of a group.
    """

    share: int = 1
    place: int = 0
    seen: Mapping[str, Tensor] | None = None
    processes: ProcessGroup = field(default_factory=ProcessGroup)
    operation: Tensor | None = None
    centred: float = 0.0

    def complete(self, name: str, own: Tensor) -> Tensor:
        """`own` [2, b, ...] among the features of all images, [2, B, ...]; only `own` carries a gradient."""
        if self.share == 1:
            return own
        whole = self.processes.gather_views(own) if self.seen is None else self.seen[name]
        images = own.shape[1]
        first = self.place * images
        return torch.cat([whole[:, :first], own, whole[:, first + images :]], dim=1)

    def groups(self, name: str, own: Tensor, size: int | None) -> Tensor:
        """What `complete` gives in groups of `size` consecutive images (None: one group); [2, G, m, p]."""
        full = self.complete(name, own)
        groups = full.unflatten(1, (-1, size or full.shape[1]))
        if self.operation is None:
            return groups
        operation = self.operation.view(groups.shape[:3])
        same = (operation[..., None] == operation[..., None, :]).to(groups.dtype)  # [2, G, m, m]
        return groups - self.centred * (same @ groups) / same.sum(-1, keepdim=True)


def reaches_beyond(group_size: int | None, micro_batch: int, batch: int) -> bool:
    """Whether groups of `group_size` consecutive images (None: the whole batch) lie across micro-batches."""
    group = group_size or batch
    return group > micro_batch or micro_batch % group != 0


def local(tensors: Iterable[Tensor]) -> list[Tensor]:
    """This process's part of each, sharing its memory."""
    return [t.to_local() if isinstance(t, DTensor) else t for t in tensors]


def whole(tree: Any) -> Any:
    """Nested dicts and lists with every sharded tensor put together on the CPU; for all processes to call."""
    if isinstance(tree, dict):
        return {key: whole(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(whole(value) for value in tree)
    return tree.full_tensor().cpu() if isinstance(tree, DTensor) else tree


def part_like(value: Any, parameter: Tensor) -> Any:
    """A whole tensor of a parameter's shape, such as an optimiser moment, sharded as the parameter is."""
    if not isinstance(parameter, DTensor) or not isinstance(value, Tensor) or value.shape != parameter.shape:
        return value
    on_device = value.to(parameter.device)
    return distribute_tensor(on_device, parameter.device_mesh, parameter.placements, src_data_rank=None)
