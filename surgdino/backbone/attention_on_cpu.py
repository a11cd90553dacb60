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


def is_plain(dtype: torch.dtype, tokens: int) -> bool:
    """Whether sequences of this length go through plain products; types without a figure do where fp32 does."""
    return tokens <= PLAIN_UP_TO.get(dtype, PLAIN_UP_TO[torch.float32])


class AttentionOnCpu(torch.autograd.Function):
    """qkv [T, 3, heads, width] and its groups, as in `surgdino.backbone.attention` -> [T, heads * width]."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, groups: Groups) -> Tensor:
        mixed = qkv.new_empty(len(qkv), 1, *qkv.shape[2:])
        kept: list[Tensor] = []
        for own, [output] in zip(_sequences(qkv, groups), _sequences(mixed, groups), strict=True):
            attend = _plain if is_plain(qkv.dtype, own.shape[3]) else _fused
            # Copied once: products of views would copy each of the three every time, and a view would keep the pack.
            kept += attend(own.contiguous(), output)
        ctx.groups = groups
        ctx.save_for_backward(mixed, *kept)
        return mixed.flatten(1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        mixed, *kept = ctx.saved_tensors
        grad_qkv = grad.new_empty(len(mixed), 3, *mixed.shape[2:])
        packs = [_sequences(pack, ctx.groups) for pack in (grad.view_as(mixed), mixed, grad_qkv)]
        for [given], [output], gradients, own, found in zip(*packs, kept[::2], kept[1::2], strict=True):
            backward = _plain_backward if is_plain(grad.dtype, own.shape[3]) else _fused_backward
            backward(given, output, own, found, gradients)
        return grad_qkv, None


# Of one group: queries, keys and values `own` [3, sequences, heads, tokens, width], the rest alike without the 3.


def _plain(own: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
    """Write the output; returns what the backward pass needs."""
    query, key, value = own.flatten(1, 2)
    tokens, width = query.shape[1:]
    shares = _scaled(query, key.mT, width, query.new_empty(len(query), tokens, tokens)).softmax(-1)
    output.copy_(torch.bmm(shares, value).view_as(output))
    return own, shares


def _plain_backward(given: Tensor, _: Tensor, own: Tensor, shares: Tensor, gradients: Tensor) -> None:
    query, key, value = own.flatten(1, 2)
    given, width = given.flatten(0, 1), own.shape[4]
    of_scores = torch.ops.aten._softmax_backward_data(torch.bmm(given, value.mT), shares, -1, shares.dtype)
    found = torch.empty_like(own)
    of_query, of_key, of_value = found.flatten(1, 2)
    _scaled(of_scores, key, width, of_query)
    _scaled(of_scores.mT, query, width, of_key)
    torch.bmm(shares.mT, given, out=of_value)
    gradients.copy_(found)


def _scaled(left: Tensor, right: Tensor, width: int, out: Tensor) -> Tensor:
    return torch.baddbmm(out, left, right, beta=0, alpha=width**-0.5, out=out)


def _fused(own: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
    mixed, sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*own)
    output.copy_(mixed)
    return own, sums


def _fused_backward(given: Tensor, output: Tensor, own: Tensor, sums: Tensor, gradients: Tensor) -> None:
    backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    for target, found in zip(gradients, backward(given, *own, output, sums, 0.0, False), strict=True):
        target.copy_(found)


def _sequences(pack: Tensor, groups: Groups) -> Iterator[Tensor]:
    """Views of a pack [T, n, heads, width], one a group: [n, sequences, heads, tokens, width]."""
    for part, group in zip(pack.split([sequences * tokens for sequences, tokens in groups]), groups, strict=True):
        yield part.unflatten(0, group).permute(2, 0, 3, 1, 4)
