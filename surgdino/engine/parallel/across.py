"""What the processes of a run add up and put together; in a single process every answer is its own."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor

from surgdino import distributed


@dataclass(frozen=True)
class Across:
    """All processes of the run. Every process must ask the same questions in the same order.

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
        shares = [torch.empty_like(tensor) for _ in range(self.world)]
        dist.all_gather(shares, tensor.detach().contiguous())
        return torch.cat(shares, dim=1)

    def most(self, value: float) -> float:
        """The largest over processes. Through the processors: no GPU is waited for."""
        if self.world == 1:
            return value
        largest = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        return largest.item()

    def any(self, holds: bool) -> bool:
        """Whether it holds in one process at least."""
        return bool(self.most(float(holds)))
