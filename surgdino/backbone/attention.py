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

Kernel = Callable[[Tensor, Groups], Tensor]


def packed_attention(qkv: Tensor, groups: Groups) -> Tensor:
    """Softmax attention of every token over the tokens of its own sequence.

    Args:
        qkv: [T, 3, heads, width], queries, keys and values, not scaled.
        groups: how the T tokens divide into sequences.

    Returns:
        [T, heads * width].
    """
    return _NAMED[_chosen(qkv.device, qkv.dtype, qkv.shape[-1])](qkv, groups)


@torch.compiler.assume_constant_result
def _chosen(device: torch.device, dtype: torch.dtype, width: int) -> str:
    """The name of `choose`'s kernel: a compiler asks once and takes it as it is."""
    return choose(device, dtype, width).__name__


def choose(device: torch.device, dtype: torch.dtype, width: int) -> Kernel:
    """The fastest variant below that runs for such tensors: one kernel for the whole pack where there is one.

    Args:
        width: of a head.
    """
    if device.type != "cuda" or dtype not in (torch.float16, torch.bfloat16) or torch.version.hip is not None:
        return grouped_attention
    if has_varlen(device, width):
        return varlen_attention
    return xformers_attention if xformers_runs(device, dtype, width) else grouped_attention


def has_varlen(device: torch.device, width: int) -> bool:
    """Whether torch's own kernel is built and takes heads of this width on this card."""
    built = torch.backends.cuda.is_flash_attention_available()
    return built and torch.cuda.get_device_capability(device) >= (8, 0) and width % 8 == 0 and width <= 256


@lru_cache
def xformers_runs(device: torch.device, dtype: torch.dtype, width: int) -> bool:
    """Whether an installed xformers computes attention and its gradient here.

    Tried, not looked up: a wheel can be for another CUDA than torch's (then its kernels are missing), and for other
    cards than it believes (0.0.35 has none for the V100).
    """
    if find_spec("xformers") is None:  # importing it takes seconds
        return False
    try:
        qkv = torch.ones(4, 3, 1, width, device=device, dtype=dtype, requires_grad=True)
        with torch.enable_grad():
            mixed = xformers_attention(qkv, ((1, 3), (1, 1)))
            (gradient,) = torch.autograd.grad(mixed.sum(), qkv)
    except Exception:  # whatever a library raises that does not fit the card
        return False
    return bool(torch.isfinite(gradient).all())


def kernel_name(backbone_packs: bool, device: torch.device, dtype: torch.dtype, width: int) -> str:
    """For people."""
    kernel = choose(device, dtype, width) if backbone_packs else grouped_attention
    return _NAMES[kernel]


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
    """PyTorch's own kernel for sequences of many lengths: CUDA, sm_80 and newer, half precision."""
    from torch.nn.attention.varlen import varlen_attn

    longest = max(tokens for _, tokens in groups)
    starts = _starts(groups, qkv.device)
    query, key, value = qkv.unbind(1)
    mixed: Any = varlen_attn(query, key, value, starts, starts, longest, longest)
    return mixed.flatten(1)


@torch.compiler.disable  # it makes its own choices by card
def xformers_attention(qkv: Tensor, groups: Groups) -> Tensor:
    """xformers' block-diagonal mask: CUDA, cards that the installed build has kernels for."""
    from xformers.ops import memory_efficient_attention

    query, key, value = (part.unsqueeze(0) for part in qkv.unbind(1))
    mixed = memory_efficient_attention(query, key, value, attn_bias=_block_diagonal(groups, qkv.device))
    return mixed.squeeze(0).flatten(1)


_NAMES: dict[Kernel, str] = {
    grouped_attention: "attention by crop size",
    varlen_attention: "packed attention (torch varlen)",
    xformers_attention: "packed attention (xformers)",
}
_NAMED = {kernel.__name__: kernel for kernel in _NAMES}

# A run repeats few packs; without the caches every block would copy from the host.


@torch.compiler.assume_constant_result  # which sees no decorator under its own
def _starts(groups: Groups, device: torch.device) -> Tensor:
    return _starts_once(groups, device)


@lru_cache(maxsize=64)
def _starts_once(groups: Groups, device: torch.device) -> Tensor:
    return torch.tensor([0, *_lengths(groups)]).cumsum(0).to(device, torch.int32)


@lru_cache(maxsize=64)
def _block_diagonal(groups: Groups, device: torch.device) -> Any:
    from xformers.ops.fmha.attn_bias import BlockDiagonalMask

    return BlockDiagonalMask.from_seqlens(_lengths(groups)).to(device)


def _lengths(groups: Groups) -> list[int]:
    return [tokens for count, tokens in groups for _ in range(count)]
