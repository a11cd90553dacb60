"""Functions of many small operators over large tensors, compiled: each element is read and written once or twice."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

F = TypeVar("F", bound=Callable[..., Any])


class Fuse(Protocol):
    """A function in, the same function out."""

    def __call__(self, function: F, /) -> F:
        """Compiled or as it is."""


def plain(function: F, /) -> F:
    """As it is."""
    return function


def fused(function: F, /) -> F:
    """Compiled; the first size of its tensor arguments changes from step to step, with the masked patches."""
    compiled = compiled_function(function)

    def call(*arguments: Any) -> Any:
        for each in arguments:
            if isinstance(each, Tensor) and each.ndim:
                torch._dynamo.maybe_mark_dynamic(each, 0)
        return compiled(*arguments)

    return call  # type: ignore[return-value]


@cache
def compiled_function(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """`function`, compiled once for the process.

    Args:
        options: of `torch.compile`.
    """
    return torch.compile(function, **options)
