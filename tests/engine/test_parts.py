"""The engine's parts keep their word one by one: teacher, schedules, optimiser, precision, views."""

from __future__ import annotations

import math
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch

from surgdino.backbone.vit import build_backbone
from surgdino.config import shipped
from surgdino.engine import precision
from surgdino.engine.method import Method
from surgdino.engine.methods.parts.heads import ProjectionHead
from surgdino.engine.methods.parts.views import seed_step, to_views
from surgdino.engine.methods.simdinov2 import Settings, SimDINOv2
from surgdino.engine.optim import (
    Rates,
    Update,
    apply_gradients,
    cosine,
    make_optimizer,
    parameter_groups,
    rates_at,
    set_rates,
    warmup_cosine,
)
from surgdino.engine.settings import HardwareSettings, PretrainSettings
from surgdino.errors import SurgdinoError

TOY = {
    "timm": "vit_tiny_patch16_224",
    "timm_kwargs": {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 2, "num_heads": 2},
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
}


def settings_of(**changes) -> PretrainSettings:
    return shipped(PretrainSettings, "pretrain", "train", **changes)


def hardware_of(**changes) -> HardwareSettings:
    return shipped(HardwareSettings, "hardware/auto", **changes)


@pytest.fixture
def network() -> Method:
    torch.manual_seed(0)
    return SimDINOv2(shipped(Settings, "method/simdinov2", head_hidden=32, head_out=16), build_backbone(TOY))


# Teacher


def test_the_teacher_is_the_moving_average_of_the_student(network):
    teacher = network.make_teacher()
    start = [p.clone() for p in teacher.parameters()]
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1.0)
    teacher.follow(network, 0.9)
    for before, now in zip(start, teacher.parameters(), strict=True):
        torch.testing.assert_close(now, before + 0.1)
    teacher.follow(network, 1.0)
    for before, now in zip(start, teacher.parameters(), strict=True):
        torch.testing.assert_close(now, before + 0.1)


def test_the_teacher_takes_no_gradient_and_drops_no_path(network):
    teacher = network.make_teacher()
    assert not teacher.training
    assert not any(p.requires_grad for p in teacher.parameters())


def test_the_head_gives_unit_vectors_in_fp32_whatever_surrounds_it():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        projected = ProjectionHead(64, 32, 16)(torch.randn(3, 5, 64))
    assert projected.dtype == torch.float32
    torch.testing.assert_close(projected.norm(dim=-1), torch.ones(3, 5))


# Schedules


def test_cosine_starts_and_ends_where_it_says():
    assert cosine(0, 100, 0.04, 0.4) == pytest.approx(0.04)
    assert cosine(99, 100, 0.04, 0.4) == pytest.approx(0.4)
    assert cosine(500, 100, 0.04, 0.4) == pytest.approx(0.4)
    assert cosine(0, 1, 1.0, 0.0) == 1.0


def test_warmup_rises_in_equal_parts_to_the_peak_and_falls_to_the_end():
    rates = [warmup_cosine(s, 50, 1.0, 0.01, 10) for s in range(50)]
    assert rates[:10] == pytest.approx([k / 10 for k in range(1, 11)])
    assert rates[10] == pytest.approx(1.0)
    assert all(a >= b for a, b in pairwise(rates[10:]))
    assert rates[-1] == pytest.approx(0.01)


def test_the_backbone_waits_for_the_head_and_then_warms_up_itself():
    settings = settings_of(steps=100, lr=1.0, head_warmup_steps=20, warmup_steps=10)
    rates = [rates_at(s, 100, settings, (0.95, 1.0)) for s in range(100)]
    assert [r.backbone_learns for r in rates] == [False] * 20 + [True] * 80
    assert all(r.backbone_lr == 0 for r in rates[:20])
    assert rates[20].backbone_lr == pytest.approx(0.1)
    assert rates[29].backbone_lr == pytest.approx(1.0)
    assert rates[0].head_lr == pytest.approx(0.05)
    assert rates[19].head_lr == pytest.approx(1.0)
    assert (rates[0].momentum, rates[-1].momentum) == (0.95, 1.0)


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 40])
def test_a_short_run_still_moves_the_backbone(steps):
    settings = settings_of(steps=steps, head_warmup_steps=20, warmup_steps=1000)
    rates = [rates_at(s, steps, settings, (0.9, 1.0)) for s in range(steps)]
    assert any(r.backbone_learns and r.backbone_lr > 0 for r in rates)
    assert all(math.isfinite(v) for r in rates for v in (r.backbone_lr, r.head_lr, r.weight_decay, r.momentum))


def test_epochs_become_steps():
    assert settings_of(epochs=2, batch_size=10).total_steps(100) == 20
    assert settings_of(steps=7).total_steps(100) == 7


@pytest.mark.parametrize(
    "bad", [{"batch_size": 0}, {"steps": 0}, {"epochs": 0}, {"ship": "both"}, {"layer_decay": 0.0}]
)
def test_settings_that_cannot_be_are_named(bad):
    with pytest.raises(SurgdinoError, match=f"train.{next(iter(bad))}"):
        settings_of(**bad)


# Optimiser


def test_every_parameter_is_in_one_group_with_its_own_factor(network):
    groups = parameter_groups(network, layer_decay=0.5, patch_embed_lr=0.2)
    of = {id(p): g for g in groups for p in g["params"]}
    assert sum(len(g["params"]) for g in groups) == len(of) == len(list(network.parameters()))
    found = {name: (of[id(p)]["lr_scale"], of[id(p)]["decays"]) for name, p in network.named_parameters()}
    assert found["backbone.vit.patch_embed.proj.weight"] == (pytest.approx(0.5**3 * 0.2), True)
    assert found["backbone.vit.pos_embed"] == (0.5**3, False)
    assert found["backbone.vit.cls_token"] == (0.5**3, False)
    assert found["backbone.mask_token"] == (0.5**3, False)
    assert found["backbone.vit.blocks.0.attn.qkv.weight"] == (0.5**2, True)
    assert found["backbone.vit.blocks.1.mlp.fc1.weight"] == (0.5, True)
    assert found["backbone.vit.blocks.1.mlp.fc1.bias"] == (0.5, False)
    assert found["backbone.vit.norm.weight"] == (1.0, False)
    assert found["head.layers.0.weight"] == (1.0, True)
    assert found["head.layers.0.bias"] == (1.0, False)


def test_rates_reach_their_groups(network):
    optimizer = make_optimizer(network, settings_of(layer_decay=0.5))
    set_rates(optimizer, Rates(backbone_lr=0.1, head_lr=0.3, weight_decay=0.2, momentum=1.0, backbone_learns=True))
    for group in optimizer.param_groups:
        assert group["lr"] == pytest.approx((0.1 if group["part"] == "backbone" else 0.3) * group["lr_scale"])
        assert group["weight_decay"] == (0.2 if group["decays"] else 0.0)


@pytest.mark.parametrize(("clip", "length"), [(3.0, 3.0), (100.0, 10.0), (0, 10.0), (None, 10.0)])
def test_clipping_bounds_the_global_norm_and_nothing_else(clip, length):
    parameters = [torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(1))]
    optimizer = torch.optim.SGD(parameters, lr=1.0, fused=True)
    parameters[0].grad, parameters[1].grad = torch.tensor([6.0, 0.0]), torch.tensor([8.0])
    update = apply_gradients(optimizer, clip)
    assert update.gradient_norm.item() == pytest.approx(10.0)
    assert torch.cat([p.detach() for p in parameters]).norm().item() == pytest.approx(length, rel=1e-5)
    assert parameters[0].grad is None


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_bad_gradient_changes_neither_weights_nor_moments(network, bad):
    optimizer = make_optimizer(network, settings_of())

    def step(value: float) -> Update:
        for parameter in network.parameters():
            parameter.grad = torch.full_like(parameter, 0.1)
        network.backbone.mask_token.grad[3] = value
        return apply_gradients(optimizer, 3.0)

    assert step(0.1).skipped.item() == 0
    kept = [p.clone() for p in network.parameters()]
    moments = [v.clone() for s in optimizer.state.values() for v in s.values()]
    assert step(bad).skipped.item() == 1
    assert all(torch.equal(a, b) for a, b in zip(kept, network.parameters(), strict=True))
    after = [v for s in optimizer.state.values() for v in s.values()]
    assert all(torch.equal(a, b) for a, b in zip(moments, after, strict=True))
    assert step(0.1).skipped.item() == 0
    assert not torch.equal(kept[-1], list(network.parameters())[-1])


# Precision and views


def test_bf16_is_chosen_only_where_it_is_native(monkeypatch):
    cpu = torch.device("cpu")
    for native in (True, False):
        monkeypatch.setattr(precision, "has_native_bf16", lambda device, native=native: native)
        expected = torch.bfloat16 if native else torch.float32
        assert precision.choose_dtype(hardware_of(), cpu) == expected
        assert precision.choose_dtype(hardware_of(precision="bf16"), cpu) == torch.bfloat16
        assert precision.choose_dtype(hardware_of(precision="fp32"), cpu) == torch.float32


def test_views_carry_the_masked_places_and_one_over_their_number():
    """Of the whole batch, and of micro-batches of one image, where places count from their own first patch."""
    masks = torch.zeros(4, 6, dtype=torch.bool)
    masks[0, [1, 4]] = True
    masks[3, [0, 1, 2, 5]] = True
    batch = SimpleNamespace(
        global_crops=torch.full((4, 3, 8, 8), 255, dtype=torch.uint8),
        local_crops=torch.zeros(2, 3, 4, 4, dtype=torch.uint8),
        masks=masks,
        masked=torch.tensor([1, 4, 18, 19, 20, 23]),
        mask_weight=torch.tensor([0.5] * 2 + [0.25] * 4),
        mask_counts=[2, 0, 0, 4],
        first=0,
        facts={},
        clean=torch.empty(0, 3, 1, 1, dtype=torch.uint8),
    )
    views = to_views(batch, torch.device("cpu"), (0.5,) * 3, (0.5,) * 3)
    assert views.images == 2
    assert views.masked.tolist() == [1, 4, 18, 19, 20, 23]
    assert views.mask_weight.tolist() == [0.5] * 2 + [0.25] * 4
    assert views.global_crops.unique().item() == pytest.approx(1.0)
    assert views.local_crops.unique().item() == pytest.approx(-1.0)
    for place, masked in ((0, [1, 4]), (1, [6, 7, 8, 11])):
        part = to_views(batch, torch.device("cpu"), (0.5,) * 3, (0.5,) * 3, slice(place, place + 1))
        assert part.masked.tolist() == masked == part.masks.flatten().nonzero().squeeze(1).tolist()
        assert part.mask_weight.tolist() == [1 / len(masked)] * len(masked)


def test_each_step_and_process_has_its_own_randomness_and_always_the_same():
    def draw(*key: int) -> float:
        seed_step(*key)
        return torch.rand(1).item()

    keys = [(s, t, r) for s in range(3) for t in range(4) for r in range(2)]
    drawn = [draw(*k) for k in keys]
    assert len(set(drawn)) == len(keys)
    assert [draw(*k) for k in reversed(keys)] == drawn[::-1]
