"""Attention inside each sequence of a pack: one function, several kernels, the same outputs.

A pack is the tokens of many sequences, one after another: [T, ...]. `groups` lists (sequences, tokens in each),
sequences of one length together. T is the sum of the products.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from surgdino.backbone.attention_on_cpu import AttentionOnCpu, Groups


def packed_attention(qkv: Tensor, groups: Groups) -> Tensor:
    """Softmax attention of every token over the tokens of its own sequence.

    Args:
        qkv: [T, 3, heads, width], queries, keys and values, not scaled.
        groups: how the T tokens divide into sequences.

    Returns:
        [T, heads * width].
    """
    return choose(qkv.device, qkv.dtype)(qkv, groups)


def choose(device: torch.device, dtype: torch.dtype) -> Callable[[Tensor, Groups], Tensor]:
    """The fastest variant below for such tensors: one kernel for the whole pack where there is one."""
    if device.type == "cuda" and dtype in (torch.float16, torch.bfloat16) and torch.version.hip is None:
        if has_xformers():
            return xformers_attention
        if torch.cuda.get_device_capability(device) >= (8, 0):
            return varlen_attention
    return grouped_attention


@lru_cache(maxsize=1)
def has_xformers() -> bool:
    """Whether xformers is installed; it is imported only where its kernel is called, because that takes seconds."""
    return find_spec("xformers") is not None


def grouped_attention(qkv: Tensor, groups: Groups) -> Tensor:
    """One call for all sequences of a length; for every device and type."""
    if qkv.device.type == "cpu" and not torch.compiler.is_compiling():
        attended: Tensor = AttentionOnCpu.apply(qkv, groups)
        return attended
    heads, width = qkv.shape[2:]
    sizes = [sequences * tokens for sequences, tokens in groups]
    parts_attended = []
    # Split into query, key and value before groups, so that the gradient is assembled once.
    for group, *parts in zip(groups, *(part.split(sizes) for part in qkv.unbind(1)), strict=True):
        query, key, value = (part.unflatten(0, group).transpose(1, 2) for part in parts)
        mixed = F.scaled_dot_product_attention(query, key, value)
        parts_attended.append(mixed.transpose(1, 2).reshape(-1, heads * width))
    return torch.cat(parts_attended)


def varlen_attention(qkv: Tensor, groups: Groups) -> Tensor:
    """PyTorch's own kernel for sequences of many lengths: CUDA, half precision."""
    from torch.nn.attention.varlen import varlen_attn

    longest = max(tokens for _, tokens in groups)
    starts = _starts(groups, qkv.device)
    query, key, value = qkv.unbind(1)
    mixed: Any = varlen_attn(query, key, value, starts, starts, longest, longest)
    return mixed.flatten(1)


def xformers_attention(qkv: Tensor, groups: Groups) -> Tensor:
    """xformers' block-diagonal mask: CUDA."""
    from xformers.ops import memory_efficient_attention

    query, key, value = (part.unsqueeze(0) for part in qkv.unbind(1))
    mixed = memory_efficient_attention(query, key, value, attn_bias=_block_diagonal(groups, qkv.device))
    return mixed.squeeze(0).flatten(1)


# A run repeats few packs; without the caches every block would copy from the host.


@lru_cache(maxsize=64)
def _starts(groups: Groups, device: torch.device) -> Tensor:
    return torch.tensor([0, *_lengths(groups)]).cumsum(0).to(device, torch.int32)


@lru_cache(maxsize=64)
def _block_diagonal(groups: Groups, device: torch.device) -> Any:
    from xformers.ops.fmha.attn_bias import BlockDiagonalMask

    return BlockDiagonalMask.from_seqlens(_lengths(groups)).to(device)


def _lengths(groups: Groups) -> list[int]:
    return [tokens for count, tokens in groups for _ in range(count)]
