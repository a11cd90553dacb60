"""Several crop sizes in one pack: the same features and gradients as one by one, and stochastic depth that skips."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor
from torch._dynamo.backends.debugging import aot_eager

from surgdino.backbone import packed
from surgdino.backbone.attention import packed_attention
from surgdino.backbone.packed import Draw, PackedBlock, draw_kept, pack_blocks
from surgdino.backbone.timm_import import timm
from surgdino.backbone.vit import Backbone, build_backbone
from surgdino.engine.hardware import keep_freed_memory

GROUPS = ((2, 70), (5, 10), (1, 3))  # on both sides of what goes through plain products in fp32

TYPES = [  # in bf16 the fused kernel takes over at a greater length
    pytest.param(torch.float32, GROUPS, {}, id="fp32"),
    pytest.param(torch.float64, GROUPS, {}, id="fp64"),
    pytest.param(torch.bfloat16, (*GROUPS, (1, 520)), {"atol": 0.05, "rtol": 0.05}, id="bf16"),
]


def toy(architecture: str = "vit_tiny_patch16_224", drop_path: float = 0.0, **kwargs) -> Backbone:
    torch.manual_seed(0)
    small = {"embed_dim": 64, "depth": 3, "num_heads": 2, "patch_size": 8, "img_size": 32, **kwargs}
    backbone = build_backbone({"timm": architecture, "timm_kwargs": small}, drop_path=drop_path)
    torch.nn.init.normal_(backbone.mask_token)
    return backbone


def crops() -> list[tuple[Tensor, Tensor | None]]:
    generator = torch.Generator().manual_seed(1)
    masks = torch.rand(4, 16, generator=generator) < 0.3
    globals_ = torch.randn(4, 3, 32, 32, generator=generator)
    return [(globals_, masks), (torch.randn(6, 3, 16, 24, generator=generator), None)]


def with_dense_mask(qkv: Tensor, groups) -> Tensor:
    """Attention of everything over everything, with a mask that forbids what lies in another sequence."""
    sequence = torch.repeat_interleave(torch.tensor([tokens for count, tokens in groups for _ in range(count)]))
    query, key, value = qkv.permute(1, 2, 0, 3)
    scores = query @ key.mT / qkv.shape[-1] ** 0.5
    scores = scores.masked_fill(sequence[:, None] != sequence[None], -torch.inf)
    return (scores.softmax(-1) @ value).transpose(0, 1).flatten(1)


@pytest.mark.parametrize(("dtype", "groups", "tolerance"), TYPES)
def test_attention_stays_inside_each_sequence_and_so_do_its_gradients(dtype, groups, tolerance) -> None:
    qkv = torch.randn(sum(n * t for n, t in groups), 3, 2, 32, dtype=dtype).requires_grad_()
    weight = torch.randn(len(qkv), 64)
    outputs = [function(qkv, groups) for function in (packed_attention, with_dense_mask)]
    assert outputs[0].dtype == dtype
    torch.testing.assert_close(*outputs, **tolerance)
    torch.testing.assert_close(*(torch.autograd.grad((o * weight).sum(), qkv)[0] for o in outputs), **tolerance)


@pytest.mark.parametrize("kwargs", [{}, {"reg_tokens": 4}, {"init_values": 0.1, "no_embed_class": True}])
def test_a_pack_gives_plain_timms_features_at_every_size(kwargs: dict) -> None:
    backbone = toy(**kwargs).eval()
    for (images, _), features in zip(crops(), backbone.forward_crops([(i, None) for i, _ in crops()]), strict=True):
        tokens = backbone.vit.forward_features(images)  # timm's own way through the same blocks
        torch.testing.assert_close(features.cls, tokens[:, 0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(features.patches, tokens[:, backbone.vit.num_prefix_tokens :], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("architecture", ["vit_tiny_patch16_224", "vit_small_patch16_dinov3"])
def test_only_what_is_wanted_is_returned_and_it_is_the_same(architecture: str) -> None:
    whole, part = toy(architecture), toy(architecture)
    masks = crops()[0][1]
    wanted = masks.flatten().nonzero().squeeze(1).flip(0)  # in any order
    every, asked = whole.forward_crops(crops()), part.forward_crops(crops(), [wanted, None])
    assert asked[1].patches.shape == (0, 64)
    values = [(e.cls, f.cls) for e, f in zip(every, asked, strict=True)]
    values.append((every[0].patches.flatten(0, 1)[wanted], asked[0].patches))
    for one, other in values:
        torch.testing.assert_close(one, other)
    sum((one.sin() * 2).sum() for one, _ in values).backward()
    sum((other.sin() * 2).sum() for _, other in values).backward()
    for (name, one), other in zip(whole.named_parameters(), part.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, atol=1e-4, rtol=1e-4, msg=name)


def multiplied_by_zero(backbone: Backbone, images: Tensor, kept) -> Tensor:
    """Stochastic depth as the formula has it: every branch of every image, times n / k where kept and 0 where not."""
    tokens = backbone.vit._pos_embed(backbone.vit.patch_embed(images))
    for block, (attention_kept, mlp_kept) in zip(backbone.vit.blocks, kept, strict=True):
        scale = [torch.zeros(len(images), 1, 1) for _ in range(2)]
        for each, [draw] in zip(scale, (attention_kept, mlp_kept), strict=True):
            each[draw.rows] = len(images) / len(draw.rows)
        tokens = tokens + scale[0] * block.attn(block.norm1(tokens))
        tokens = tokens + scale[1] * block.mlp(block.norm2(tokens))
    return backbone.vit.norm(tokens)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("asked", [False, True])
def test_skipped_images_are_those_that_the_formula_multiplies_by_zero(recompute: bool, asked: bool) -> None:
    images = crops()[1][0]
    packed, plain = toy(drop_path=0.4), toy(drop_path=0.4)
    packed.set_grad_checkpointing(recompute)
    torch.manual_seed(7)
    [features] = packed.forward_crops([(images, None)], [torch.arange(len(images) * 6)] if asked else None)
    torch.manual_seed(7)
    expected = multiplied_by_zero(plain, images, draw_kept(plain.vit.blocks, ((len(images), 7),), images.device))
    torch.testing.assert_close(features.cls, expected[:, 0])
    torch.testing.assert_close(features.patches.reshape(-1, 64), expected[:, 1:].reshape(-1, 64))
    (features.cls.sin().sum() + features.patches.cos().sum()).backward()
    (expected[:, 0].sin().sum() + expected[:, 1:].cos().sum()).backward()
    for (name, one), other in zip(packed.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, atol=1e-4, rtol=1e-4, msg=name)


def test_a_size_drops_the_same_images_whatever_sizes_come_after_it() -> None:
    backbone = toy(drop_path=0.4)
    both, first = crops(), crops()[:1]
    torch.manual_seed(3)
    together = backbone.forward_crops(both)[0].cls
    torch.manual_seed(3)
    torch.testing.assert_close(backbone.forward_crops(first)[0].cls, together)


def test_shares_and_schedules_of_stochastic_depth() -> None:
    groups = ((8, 5), (40, 3))

    def counts(schedule: str, mode: bool = True) -> list:
        small = {"embed_dim": 64, "depth": 3, "num_heads": 2, "patch_size": 8, "img_size": 32}
        model = {"timm": "vit_tiny_patch16_224", "timm_kwargs": small}
        blocks = build_backbone(model, drop_path=0.2, schedule=schedule).train(mode).vit.blocks
        drawn = draw_kept(blocks, groups, torch.device("cpu"))
        return [draws and [len(d.rows.unique()) for d in draws] for pair in drawn for draws in pair]

    assert counts("uniform") == [[6, 32]] * 6
    assert counts("linear") == [None, None, [7, 36], [7, 36], [6, 32], [6, 32]]
    assert counts("uniform", mode=False) == [None] * 6, "nothing is dropped in evaluation"


def test_the_mean_over_draws_is_the_undropped_block() -> None:
    block, x = toy(drop_path=0.5).vit.blocks[0], torch.randn(4 * 3, 64)
    whole = block(x.clone(), groups=((4, 3),), kept=(None, [Draw(torch.arange(4), torch.arange(4))]))
    orders = [torch.tensor([i, j, *({0, 1, 2, 3} - {i, j})]) for i in range(4) for j in range(i)]
    halves = [Draw(order[:2], order.argsort()) for order in orders]
    mean = torch.stack([block(x.clone(), groups=((4, 3),), kept=(None, [half])) for half in halves]).mean(0)
    torch.testing.assert_close(mean, whole)


def test_blocks_that_are_not_plain_stay_as_they_are() -> None:
    for odd in ("vit_small_patch16_dinov3", "vit_small_patch16_18x2_224"):
        small = {"embed_dim": 64, "depth": 2, "num_heads": 2}
        blocks = timm.create_model(odd, num_classes=0, **small).blocks
        assert not pack_blocks(blocks)
        assert not any(isinstance(block, PackedBlock) for block in blocks)


def test_copies_and_timm_still_call_the_blocks_in_their_own_way() -> None:
    backbone = toy()
    teacher = copy.deepcopy(backbone).eval()
    assert all(isinstance(block, PackedBlock) for block in teacher.vit.blocks)
    images = crops()[0][0]
    torch.testing.assert_close(teacher.vit(images), teacher(images).cls)


def test_freed_memory_is_kept_where_the_c_library_is_glibc() -> None:
    import platform

    assert keep_freed_memory() is (platform.libc_ver()[0] == "glibc")


# Compiled


@pytest.fixture
def compiled(monkeypatch) -> list[str]:
    """Blocks compile into whole graphs, run by autograd's ahead-of-time tracer; the backend's name a graph."""
    torch._dynamo.reset()
    graphs = []

    def backend(module, inputs):
        graphs.append("a graph")
        return aot_eager(module, inputs)

    parts = packed.compiled_parts(backend=backend, fullgraph=True)
    monkeypatch.setattr(packed, "compiled_parts", lambda: parts)
    return graphs


def pass_through(backbone: Backbone, seed: int, masked: int) -> list[Tensor]:
    """Outputs and gradients of a pass with dropped paths, of which `masked` patches are read."""
    torch.manual_seed(seed)
    backbone.zero_grad()
    seen, local = backbone.forward_crops(crops(), [torch.arange(masked), None])
    (seen.cls.sin().sum() + seen.patches.cos().sum() + local.cls.square().sum()).backward()
    return [seen.cls, seen.patches, local.cls, *(p.grad for p in backbone.parameters())]


@pytest.mark.slow
@pytest.mark.quick("stored")
@pytest.mark.parametrize("recompute", [False, True], ids=["stored", "recomputed"])
def test_compiled_blocks_compute_the_same_in_whole_graphs_however_many_patches_are_read(compiled, recompute) -> None:
    eager, blocks = toy(drop_path=0.4, depth=2), toy(drop_path=0.4, depth=2)
    for each in (eager, blocks):
        each.set_grad_checkpointing(recompute)
    blocks.compiles = True
    made = []
    for masked in (9, 20):
        for found, expected in zip(
            pass_through(blocks, masked, masked), pass_through(eager, masked, masked), strict=True
        ):
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
        made.append(len(compiled))
    assert made == [3] * 2, "one graph for each half of the blocks, one for the last"
