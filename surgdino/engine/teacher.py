"""Student and teacher: the same network twice, the second following the first."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn

from surgdino.backbone.vit import Backbone
from surgdino.engine.parallel.sharded import local

T = TypeVar("T")


class Network(nn.Module):
    """A backbone and the heads of one method."""

    def __init__(self, backbone: Backbone, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, compute: Callable[..., T], *arguments: Any) -> T:
        """`compute(self, *arguments)`, here because what wraps a module for many processes acts around its forward."""
        return compute(self, *arguments)


def make_teacher(student: Network) -> Network:
    """A copy that starts where the student is, takes no gradient, and never drops a path."""
    return copy.deepcopy(student).requires_grad_(False).eval()


@torch.no_grad()
def update_teacher(teacher: Network, student: Network, momentum: float) -> None:
    """teacher <- momentum * teacher + (1 - momentum) * student, for every parameter.

    Buffers are the teacher's own (a method keeps its running centres there) and stay as they are.
    """
    torch._foreach_lerp_(local(teacher.parameters()), local(student.parameters()), 1.0 - momentum)
