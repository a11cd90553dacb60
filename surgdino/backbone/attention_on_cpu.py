"""Attention of a pack on the CPU: written straight into the pack, forward and backward.

Autograd alone would keep copies of keys, values and output for the backward pass, and join the gradients of queries,
keys and values twice: an eighth of a block's memory and 2 % of a step's time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

Groups = tuple[tuple[int, int], ...]

# Up to so many tokens, plain products are quicker than the fused kernel. fp32, 32 sequences of 37 tokens, forward and
# backward: 12 ms against 16; at 197 both take 23 ms, and the fused one stores no probabilities. bf16, measured with
# AVX-512 BF16: 4.5 ms against 27 at 37 tokens, 13 against 34 at 197; beyond 512 the stored probabilities would take
# more memory than all else in a block.
PLAIN_UP_TO = {torch.float32: 64, torch.bfloat16: 512}

_fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_fused_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def is_plain(dtype: torch.dtype, tokens: int) -> bool:
    """Whether sequences of this length go through plain products; types without a figure do where fp32 does."""
    return tokens <= PLAIN_UP_TO.get(dtype, PLAIN_UP_TO[torch.float32])


class AttentionOnCpu(torch.autograd.Function):
    """qkv [T, 3, heads, width] and its groups, as in `surgdino.backbone.attention` -> [T, heads * width]."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, groups: Groups) -> Tensor:
        mixed = qkv.new_empty(len(qkv), *qkv.shape[2:])
        kept = []  # a group's probabilities, or the fused kernel's sums
        for (query, key, value), [target] in zip(
            _sequences(qkv, groups), _sequences(mixed[:, None], groups), strict=True
        ):
            if is_plain(qkv.dtype, query.shape[2]):
                kept.append(((query * query.shape[3] ** -0.5) @ key.mT).softmax(-1))
                target.copy_(kept[-1] @ value)
            else:
                output, sums = _fused(query, key, value)
                target.copy_(output)
                kept.append(sums)
        ctx.groups = groups
        ctx.save_for_backward(qkv, mixed, *kept)
        return mixed.flatten(1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        qkv, mixed, *kept = ctx.saved_tensors
        grad_qkv = torch.empty_like(qkv)
        each = (qkv, mixed[:, None], grad.view_as(mixed)[:, None], grad_qkv)
        for (query, key, value), [output], [given], targets, found in zip(
            *(_sequences(tensor, ctx.groups) for tensor in each), kept, strict=True
        ):
            if is_plain(qkv.dtype, query.shape[2]):
                gradients = _plain_backward(query, key, value, found, given)
            else:
                gradients = _fused_backward(given, query, key, value, output, found, 0.0, False)
            for target, gradient in zip(targets, gradients, strict=True):
                target.copy_(gradient)
        return grad_qkv, None


def _plain_backward(
    query: Tensor, key: Tensor, value: Tensor, shares: Tensor, given: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    scale = query.shape[3] ** -0.5
    of_scores = torch.ops.aten._softmax_backward_data(given @ value.contiguous().mT, shares, -1, shares.dtype)
    # The layouts are those that autograd's own products have: the last bits of a sum depend on them.
    columns, scaled = key.mT.contiguous(), (query * scale).contiguous()
    return (of_scores @ columns.mT) * scale, (scaled.mT @ of_scores).mT, shares.mT @ given


def _sequences(pack: Tensor, groups: Groups) -> Iterator[tuple[Tensor, ...]]:
    """Views of a pack [T, n, heads, width], one a group: n times [sequences, heads, tokens, width]."""
    for part, group in zip(pack.split([sequences * tokens for sequences, tokens in groups]), groups, strict=True):
        yield part.unflatten(0, group).permute(2, 0, 3, 1, 4).unbind(0)
