"""timm's transformer block over a pack of sequences: linear layers see all tokens of all crop sizes at once.

Stochastic depth leaves whole sequences out of a block instead of multiplying what it computed for them by 0, so that a
rate of 0.2 saves a fifth of the work (Oquab et al. 2023, arXiv 2304.07193, section 5).

Shapes: T tokens of all sequences together, D the width; `groups` as in `surgdino.backbone.attention`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from surgdino.backbone.attention import Groups, packed_attention
from surgdino.backbone.linear_on_cpu import linear
from surgdino.backbone.timm_import import timm


class Draw(NamedTuple):
    """Which k of a group's n sequences a residual branch is computed for.

    Attributes:
        rows: int64 [k], those.
        place: int64 [n], where each sequence lies among `rows`; k or more where it is left out.
    """

    rows: Tensor
    place: Tensor


# One draw a group; None where a branch is computed for all.
Kept = Sequence[Draw] | None

_Block = timm.models.vision_transformer.Block


class PackedBlock(_Block):
    """timm's block, with a second way to be called; parameters, names and the first way are timm's."""

    attn: Any
    norm1: Any

    def forward(
        self,
        x: Tensor,
        *args: Any,
        groups: Groups | None = None,
        kept: tuple[Kept, Kept] = (None, None),
        wanted: Tensor | None = None,
        compiled: bool = False,
        **kwargs: Any,
    ) -> Tensor:
        """One block.

        Args:
            x: [T, D]; with `kept` it is overwritten. Without `groups`: [B, N, D], and all is as in timm.
            kept: for the attention and for the MLP, from `draw_kept`.
            wanted: int64 [W], the tokens that are read afterwards. Of the others only keys and values are computed.
            compiled: run as a graph that all blocks share.

        Returns:
            [T, D], or [W, D] where `wanted` is given.
        """
        if groups is None:
            return super().forward(x, *args, **kwargs)
        if x.dtype != self.norm1.weight.dtype:
            with self._weights_as(x.dtype):
                return self.forward(x, groups=groups, kept=kept, wanted=wanted, compiled=compiled)
        if wanted is not None and compiled:  # as many as there are masked patches: another number in every step
            torch._dynamo.maybe_mark_dynamic(wanted, 0)
        attention, mlp, last = compiled_parts() if compiled else PackedBlock.parts()
        # Tokens in bf16 meet weights in bf16: autocast would have the norms in fp32.
        with torch.autocast(x.device.type, enabled=False) if x.dtype == torch.bfloat16 else nullcontext():
            if wanted is not None:
                return last(self, x, groups, kept, wanted)
            return mlp(self, attention(self, x, groups, kept[0]), groups, kept[1])

    @contextmanager
    def _weights_as(self, dtype: torch.dtype) -> Iterator[None]:
        """With copies in another type in the place of the weights, which their gradients go to.

        As `torch.func.functional_call` does, without its search for tied weights: of a small model it was 6 % of the
        time that the host takes for a step, and of a small batch the GPU waits for the host.
        """
        places = [(part._parameters, name) for part in self.modules() for name in part._parameters]
        places = [(weights, name) for weights, name in places if weights[name] is not None]
        own = [weights[name] for weights, name in places]
        for (weights, name), copy in zip(places, _Cast.apply(dtype, *own), strict=True):
            weights[name] = copy
        try:
            yield
        finally:
            for (weights, name), weight in zip(places, own, strict=True):
                weights[name] = weight

    @staticmethod
    def parts() -> tuple[Callable[..., Tensor], ...]:
        """What is compiled: each half of a block, since the tokens between them are cheaper kept than computed again;
        and the last block."""
        return PackedBlock._add_attention, PackedBlock._add_mlp, PackedBlock._wanted

    def _add_attention(self, x: Tensor, groups: Groups, kept: Kept) -> Tensor:
        return _add_branch(x, groups, kept, lambda part, sub: self._project(self._attend(part, sub)))

    def _add_mlp(self, x: Tensor, groups: Groups, kept: Kept) -> Tensor:
        return _add_branch(x, groups, kept, lambda part, _: self._mlp(part))

    def _attend(self, x: Tensor, groups: Groups) -> Tensor:
        return packed_attention(
            linear(self.attn.qkv, self.norm1(x)).unflatten(-1, (3, self.attn.num_heads, -1)), groups
        )

    def _project(self, attended: Tensor) -> Tensor:
        return self.ls1(self.attn.proj_drop(linear(self.attn.proj, attended)))

    def _mlp(self, x: Tensor) -> Tensor:
        mlp = self.mlp
        if type(mlp) is not timm.layers.Mlp:
            return self.ls2(mlp(self.norm2(x)))
        hidden = mlp.norm(mlp.drop1(mlp.act(linear(mlp.fc1, self.norm2(x)))))
        return self.ls2(mlp.drop2(linear(mlp.fc2, hidden)))

    def _wanted(self, x: Tensor, groups: Groups, kept: tuple[Kept, Kept], wanted: Tensor) -> Tensor:
        # For so few tokens multiplying by 0 costs less than leaving them out: the host would ask the device how many.
        attended, x = self._attend(x, groups).index_select(0, wanted), x.index_select(0, wanted)
        x = x + (self._project(attended) * _weights(groups, kept[0], wanted)).to(x.dtype)
        return x + (self._mlp(x) * _weights(groups, kept[1], wanted)).to(x.dtype)


def pack_blocks(blocks: Iterable[nn.Module]) -> bool:
    """Make blocks that are exactly timm's callable with packs; changes nothing and returns False for any others."""
    blocks = list(blocks)
    plain = all(_is_plain(block) for block in blocks)
    for block in blocks if plain else ():
        block.__class__ = PackedBlock  # it has no state of its own, so the instance fits
    return plain


def _is_plain(block: nn.Module) -> bool:
    if type(block) is not _Block or type(block.attn) is not timm.layers.Attention:
        return False
    parts = [getattr(block.attn, name, None) for name in ("q_norm", "k_norm", "norm", "gate")]
    return block.attn.attn_drop.p == 0 and all(part is None or isinstance(part, nn.Identity) for part in parts)


def residual_dtype(tokens: Tensor) -> torch.dtype:
    """The type of the tokens between blocks, and so of all that a block computes, from that of the embedded ones.

    bf16 where that is computed in, as under FSDP's mixed precision in the reference: half the memory traffic of fp32
    between matrix products, and on a CPU 4 % less memory. fp16 would overflow there.
    """
    kind = tokens.device.type
    on = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return torch.bfloat16 if on and torch.get_autocast_dtype(kind) == torch.bfloat16 else tokens.dtype


class _Cast(torch.autograd.Function):
    """A block's weights in another type; their gradients come back in the weights' own."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.dtype = weights[0].dtype
        ctx.set_materialize_grads(False)
        copies = _in_type(weights, dtype)
        wanted = ctx.needs_input_grad[1:]
        ctx.mark_non_differentiable(*(copy for copy, learns in zip(copies, wanted, strict=True) if not learns))
        return tuple(copies)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        wide = iter(_in_type([grad for grad in grads if grad is not None], ctx.dtype))
        return None, *(None if grad is None else next(wide) for grad in grads)


def _in_type(tensors: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    copies = [torch.empty_like(tensor, dtype=dtype) for tensor in tensors]
    if copies:
        torch._foreach_copy_(copies, list(tensors))
    return copies


def draw_kept(blocks: Sequence[nn.Module], groups: Groups, device: torch.device) -> list[tuple[Kept, Kept]]:
    """The sequences that each block's two branches are computed for: of n, the whole number nearest to n (1 - rate).

    A group's draw does not depend on the groups after it.
    """
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) if block.training else 0.0 for block in blocks]
    if not any(rates):
        return [(None, None)] * len(blocks)
    orders = [torch.rand(2 * len(blocks), sequences, device=device).argsort(1) for sequences, _ in groups]
    places = [order.argsort(1) for order in orders]

    def kept(row: int, rate: float) -> Kept:
        counts = [max(round(sequences * (1 - rate)), 1) for sequences, _ in groups]
        if all(count == sequences for count, (sequences, _) in zip(counts, groups, strict=True)):
            return None
        return [Draw(order[row, :k], place[row]) for order, place, k in zip(orders, places, counts, strict=True)]

    return [(kept(2 * k, rate), kept(2 * k + 1, rate)) for k, rate in enumerate(rates)]


def _add_branch(x: Tensor, groups: Groups, kept: Kept, branch: Callable[[Tensor, Groups], Tensor]) -> Tensor:
    """x + branch(x), for the kept sequences alone and scaled up by their share, so that the mean stays."""
    if kept is None:
        return x + branch(x, groups)
    if torch.compiler.is_compiling():  # in-place writes would break the graph, and there they save nothing
        where = _places(groups, kept)
        added = branch(_TakeAtPlaces.apply(x, *where), _of_kept(groups, kept)).to(x.dtype)
        return _AddAtPlaces.apply(x, added, *where)
    x, part = _Take.apply(x, groups, kept)
    return _Add.apply(x, branch(part, _of_kept(groups, kept)).to(x.dtype), groups, kept)


def _of_kept(groups: Groups, kept: Sequence[Draw]) -> Groups:
    return tuple((len(draw.rows), tokens) for draw, (_, tokens) in zip(kept, groups, strict=True))


def _sequences(x: Tensor, groups: Groups) -> list[Tensor]:
    """Views of a pack, one a group: [sequences, tokens * D]."""
    return [part.view(n, -1) for part, (n, _) in zip(x.split([n * t for n, t in groups]), groups, strict=True)]


def _select(x: Tensor, groups: Groups, kept: Sequence[Draw]) -> Tensor:
    part = _of_kept(groups, kept)
    selected = x.new_empty(sum(n * t for n, t in part), x.shape[1])
    for source, draw, target in zip(_sequences(x, groups), kept, _sequences(selected, part), strict=True):
        torch.index_select(source, 0, draw.rows, out=target)
    return selected


def _add(x: Tensor, part: Tensor, groups: Groups, kept: Sequence[Draw], scaled: bool) -> Tensor:
    """x, with the pack of its kept sequences added in place."""
    parts = _sequences(part, _of_kept(groups, kept))
    for target, draw, source in zip(_sequences(x, groups), kept, parts, strict=True):
        target.index_add_(0, draw.rows, source, alpha=len(target) / len(draw.rows) if scaled else 1)
    return x


def _weights(groups: Groups, kept: Kept, wanted: Tensor) -> Tensor | float:
    """[W, 1], what a token's branch counts: 0 in a sequence that is left out."""
    if kept is None:
        return 1.0
    weights = [
        torch.where(draw.place < len(draw.rows), n / len(draw.rows), 0.0).repeat_interleave(t)
        for draw, (n, t) in zip(kept, groups, strict=True)
    ]
    return torch.cat(weights).index_select(0, wanted).unsqueeze(1)


# index_select and index_add on packs, with gradients added in place: autograd alone would fill, add and copy tensors
# of the size of x twice more a branch (4 % of a CPU step). Writing into x and its gradient is safe: nothing else
# holds them: x comes from a concatenation or a block and is read by the next branch alone, and a norm or a selection,
# which both make a new gradient, ends the chain.


class _Take(torch.autograd.Function):
    """x [T, D] -> x, and its kept sequences as a pack."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, groups: Groups, kept: Sequence[Draw]) -> tuple[Tensor, Tensor]:
        ctx.mark_dirty(x)
        ctx.groups, ctx.kept = groups, kept
        return x, _select(x, groups, kept)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, grad_kept: Tensor) -> tuple[Tensor, None, None]:
        return _add(grad, grad_kept, ctx.groups, ctx.kept, scaled=False), None, None


class _Add(torch.autograd.Function):
    """x [T, D] and a branch of its kept sequences -> x with the branch added to these."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, branch: Tensor, groups: Groups, kept: Sequence[Draw]) -> Tensor:
        ctx.mark_dirty(x)
        ctx.groups, ctx.kept = groups, kept
        return _add(x, branch, groups, kept, scaled=True)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        grad_branch = _select(grad, ctx.groups, ctx.kept)
        parts = _sequences(grad_branch, _of_kept(ctx.groups, ctx.kept))
        for part, (sequences, _) in zip(parts, ctx.groups, strict=True):
            part.mul_(sequences / len(part))
        return grad, grad_branch, None, None


# The same for a compiler: every direction reads from places and none adds to them, so that it fuses with what comes
# before and after, is the same every time, and nothing is filled first.


class _Places(NamedTuple):
    """Of a pack of T tokens and the pack of its S kept ones.

    Attributes:
        take: int64 [S], which tokens are kept.
        put: int64 [T], where each token lies among them; any of them where it does not.
        share: [T], what a token's branch counts: 0 where it is left out.
    """

    take: Tensor
    put: Tensor
    share: Tensor


def _places(groups: Groups, kept: Sequence[Draw]) -> _Places:
    take, put, share, start, start_kept = [], [], [], 0, 0
    for (sequences, tokens), draw in zip(groups, kept, strict=True):
        steps, count = torch.arange(tokens, device=draw.rows.device), len(draw.rows)
        inside = draw.place < count
        take.append((draw.rows[:, None] * tokens + (steps + start)).flatten())
        put.append((torch.where(inside, draw.place, 0)[:, None] * tokens + (steps + start_kept)).flatten())
        share.append(torch.where(inside, sequences / count, 0.0)[:, None].expand(-1, tokens).flatten())
        start, start_kept = start + sequences * tokens, start_kept + count * tokens
    return _Places(torch.cat(take), torch.cat(put), torch.cat(share))


class _TakeAtPlaces(torch.autograd.Function):
    """x [T, D] -> the pack of its kept sequences."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, take: Tensor, put: Tensor, share: Tensor) -> Tensor:
        ctx.save_for_backward(put, share)
        return x[take]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        put, share = ctx.saved_tensors
        return torch.where(share[:, None] > 0, grad[put], 0.0), None, None, None


class _AddAtPlaces(torch.autograd.Function):
    """x [T, D] and a branch of its kept sequences -> x with the branch added to these."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, branch: Tensor, take: Tensor, put: Tensor, share: Tensor) -> Tensor:
        ctx.save_for_backward(take, share)
        return x + (branch[put] * share[:, None]).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        take, share = ctx.saved_tensors
        return grad, (grad[take] * share[take][:, None]).to(grad.dtype), None, None, None


@cache
def compiled_parts(**options: Any) -> tuple[Callable[..., Tensor], ...]:
    """`PackedBlock.parts`, compiled once for all blocks: their weights are inputs of the graphs.

    Sizes are fixed, but for the tokens that are read. Student and teacher, with and without gradient, one pass for all
    crops and one for the global ones: half a dozen graphs a part at most.

    Args:
        options: of `torch.compile`.
    """
    # Only blocks are compiled, so DDP's exchange already goes on between them; it would cut their graphs in pieces.
    torch._dynamo.config.optimize_ddp = False
    # Mixed crop sizes, and those of a run's phases: torch would run what is beyond 8 graphs a part uncompiled.
    torch._dynamo.config.recompile_limit = 64
    return tuple(torch.compile(part, dynamic=False, **options) for part in PackedBlock.parts())
