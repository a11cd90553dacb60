"""Tensors of which every process holds a part: the part, the whole, and the way from the whole to the part."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor


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
    """A whole tensor of a parameter's shape, such as a moment of its optimiser, cut as the parameter is."""
    if not isinstance(parameter, DTensor) or not isinstance(value, Tensor) or value.shape != parameter.shape:
        return value
    on_device = value.to(parameter.device)
    return distribute_tensor(on_device, parameter.device_mesh, parameter.placements, src_data_rank=None)
