"""The kernel that attention takes on each card, and that all of them compute the same."""

from __future__ import annotations

import sys
from itertools import pairwise
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import Tensor

from surgdino.backbone import attention
from surgdino.backbone.attention import choose, grouped_attention, varlen_attention, xformers_attention, xformers_runs

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
GROUPS = ((2, 70), (5, 10), (1, 3))


@pytest.fixture(autouse=True)
def _forget():
    for cached in (xformers_runs, attention._starts_once, attention._block_diagonal):
        cached.cache_clear()
    yield
    for cached in (xformers_runs, attention._starts_once, attention._block_diagonal):
        cached.cache_clear()


def with_xformers(monkeypatch: pytest.MonkeyPatch, runs: bool = True) -> None:
    """A stand-in for the package: the two names that are used of it, in plain products."""

    class BlockDiagonalMask(SimpleNamespace):
        @classmethod
        def from_seqlens(cls, lengths: list[int]) -> BlockDiagonalMask:
            return cls(lengths=lengths)

        def to(self, device: torch.device) -> BlockDiagonalMask:
            return self

    def memory_efficient_attention(query: Tensor, key: Tensor, value: Tensor, attn_bias: BlockDiagonalMask) -> Tensor:
        if not runs:
            raise NotImplementedError("No operator found for `memory_efficient_attention_forward` with inputs")
        assert query.shape[0] == 1  # [1, T, heads, width], as it wants a block-diagonal mask
        ends = torch.tensor([0, *attn_bias.lengths]).cumsum(0).tolist()
        return torch.cat([_plain(*(x[0, a:b] for x in (query, key, value))) for a, b in pairwise(ends)])[None]

    names = {
        "xformers": {},
        "xformers.ops": {"memory_efficient_attention": memory_efficient_attention},
        "xformers.ops.fmha": {},
        "xformers.ops.fmha.attn_bias": {"BlockDiagonalMask": BlockDiagonalMask},
    }
    for name, content in names.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(attention, "find_spec", lambda name: object())


def _plain(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """[n, heads, width] of one sequence."""
    scores = torch.einsum("qhw,khw->hqk", query, key) / query.shape[-1] ** 0.5
    return torch.einsum("hqk,khw->qhw", scores.softmax(-1), value)


def plain_varlen(query, key, value, starts, starts_k, longest, longest_k) -> Tensor:
    """torch.nn.attention.varlen.varlen_attn as it is called here, in plain products."""
    assert starts.dtype == torch.int32
    assert longest == longest_k == starts.diff().max()
    return torch.cat([_plain(query[a:b], key[a:b], value[a:b]) for a, b in pairwise(starts.tolist())])


@pytest.mark.parametrize("precision", HALF)
@pytest.mark.parametrize(
    ("capability", "changes", "expected"),
    [
        ((9, 0), {}, varlen_attention),
        ((8, 6), {"xformers": True}, varlen_attention),
        ((8, 0), {"built": False}, grouped_attention),
        ((8, 0), {"built": False, "xformers": True}, xformers_attention),
        ((8, 0), {"width": 36}, grouped_attention),
        ((8, 0), {"width": 264, "xformers": True}, xformers_attention),
        ((7, 5), {"xformers": True}, xformers_attention),
        ((7, 5), {}, grouped_attention),
        ((7, 0), {"xformers": False}, grouped_attention),
        ((9, 0), {"hip": "6.4", "xformers": True}, grouped_attention),
    ],
    ids=lambda value: str(value) if isinstance(value, tuple | dict) else "",
)
def test_the_kernel_follows_the_card(monkeypatch, precision, capability, changes, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.backends.cuda, "is_flash_attention_available", lambda: changes.get("built", True))
    monkeypatch.setattr(torch.version, "hip", changes.get("hip"))
    monkeypatch.setattr(attention, "xformers_runs", lambda device, dtype, width: changes.get("xformers", False))
    assert choose(CUDA, HALF[precision], changes.get("width", 64)) is expected
    assert choose(CUDA, torch.float32, 64) is choose(CPU, HALF[precision], 64) is grouped_attention


def test_xformers_is_taken_where_it_runs_and_not_where_it_is_only_installed(monkeypatch):
    assert not xformers_runs(CPU, torch.float32, 64)  # not installed
    xformers_runs.cache_clear()
    with_xformers(monkeypatch, runs=False)
    assert not xformers_runs(CPU, torch.float32, 64)
    assert not xformers_runs(CUDA, torch.float32, 64)  # no such device
    xformers_runs.cache_clear()
    with_xformers(monkeypatch)
    state = torch.get_rng_state()
    with torch.no_grad():
        assert xformers_runs(CPU, torch.float32, 64)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("variant", [varlen_attention, xformers_attention])
def test_every_kernel_gives_what_the_grouped_calls_give(monkeypatch, variant):
    with_xformers(monkeypatch)
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", plain_varlen)
    qkv = torch.randn(sum(n * t for n, t in GROUPS), 3, 2, 32, requires_grad=True)
    weight = torch.randn(len(qkv), 64)
    outputs = [function(qkv, GROUPS) for function in (variant, grouped_attention)]
    torch.testing.assert_close(*outputs)
    torch.testing.assert_close(*(torch.autograd.grad((o * weight).sum(), qkv)[0] for o in outputs))


@pytest.mark.parametrize("variant", [varlen_attention, xformers_attention])
def test_every_kernel_on_a_card(variant):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    if variant is xformers_attention and not xformers_runs(CUDA, torch.bfloat16, 64):
        pytest.skip("xformers does not run here")
    groups = ((2, 197), (8, 37))
    qkv = torch.randn(2 * 197 + 8 * 37, 3, 6, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    weight = torch.randn(len(qkv), 384, device="cuda", dtype=torch.bfloat16)
    outputs = [function(qkv, groups) for function in (variant, grouped_attention)]
    torch.testing.assert_close(*outputs, atol=2e-2, rtol=2e-2)
    gradients = [torch.autograd.grad((o * weight).sum(), qkv)[0] for o in outputs]
    torch.testing.assert_close(*gradients, atol=4e-2, rtol=4e-2)
