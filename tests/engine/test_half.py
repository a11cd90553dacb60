"""fp16: a loss scale that finds its size on the device, the same run as in fp32 but for rounding, exact resume."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from surgdino.engine import loss_scale
from surgdino.engine.loss_scale import FIRST, LEAST, LossScale
from surgdino.engine.methods.parts import spread
from surgdino.engine.optim import apply_gradients
from surgdino.engine.plan import TrainPlan, TrainResult
from surgdino.engine.train import train
from surgdino.errors import SurgdinoError
from tests.engine.gloo import in_processes
from tests.engine.test_processes import plan_without_chance
from tests.engine.test_training import final_tensors, lines, plan_in, stop_after, without_timings

CPU = torch.device("cpu")


def in_half(plan: TrainPlan, precision: str = "fp16", **changes) -> TrainPlan:
    return replace(plan, hardware=replace(plan.hardware, precision=precision, **changes))


def windows(result: TrainResult) -> list[dict]:
    return [row for row in lines(result) if "loss" in row]


# The scale


def test_the_scale_halves_with_an_overflow_and_doubles_after_enough_good_steps(monkeypatch):
    monkeypatch.setattr(loss_scale, "GOOD_STEPS", 3)
    scale = LossScale(CPU)
    seen = []
    for skipped in (1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0):
        scale.update(torch.tensor(skipped))
        seen.append(scale.value.item() / FIRST)
    assert seen == [0.5, 0.25, 0.25, 0.25, 0.5, 0.5, 0.25, 0.25]
    assert scale.good.item() == 1
    for _ in range(40):
        scale.update(torch.tensor(1.0))
    assert scale.value.item() == LEAST
    assert scale.overflowed(torch.tensor(1.0)).item() == 0.0  # no smaller scale could help


@pytest.mark.parametrize("clip", [None, 0.5, 100.0])
def test_a_scaled_loss_makes_the_step_that_the_loss_makes(clip):
    def step(scale: LossScale | None) -> tuple[torch.Tensor, torch.Tensor]:
        torch.manual_seed(0)
        weight = torch.nn.Parameter(torch.randn(5, 3))
        optimizer = torch.optim.AdamW([weight], lr=0.1, fused=True)
        loss = (weight.sin() ** 2).sum()
        (loss if scale is None else scale.scaled(loss)).backward()
        update = apply_gradients(optimizer, clip, scale)
        assert update.skipped.item() == update.bad.item() == 0
        return weight.detach(), update.gradient_norm

    plain, scaled = step(None), step(LossScale(CPU))
    torch.testing.assert_close(scaled, plain, rtol=1e-6, atol=0)  # a power of two: the same digits but for the norm's


# A run


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> TrainResult:
    """From the usual first scale, which the toy's gradients of norm 40 overflow in its first steps."""
    return train(in_half(plan_in(tmp_path_factory.mktemp("whole"))))


@pytest.mark.slow
def test_a_run_in_fp16_is_the_run_in_fp32_but_for_rounding(tmp_path, monkeypatch):
    monkeypatch.setattr(loss_scale, "FIRST", 2.0**8)
    half = train(in_half(plan_in(tmp_path / "half", probe=None)))
    plain = train(in_half(plan_in(tmp_path / "plain", probe=None), "fp32"))
    assert (half.status, half.skipped, half.warnings) == ("finished", 0, [])
    for ours, theirs in zip(windows(half), windows(plain), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=5e-3)
        assert ours["gradient_norm"] == pytest.approx(theirs["gradient_norm"], rel=2e-2)  # of the unscaled gradient
    assert [row["loss_scale"] for row in windows(half)] == [2.0**8] * 4
    assert "loss_scale" not in windows(plain)[0]


@pytest.mark.slow
@pytest.mark.quick("2")
@pytest.mark.parametrize("step", [2, 7])
def test_stopped_and_resumed_in_fp16_bit_for_bit(tmp_path, monkeypatch, whole, step):
    with monkeypatch.context() as patched:
        stop_after(patched, step)
        assert train(in_half(plan_in(tmp_path))).status == "stopped"
    resumed = train(in_half(plan_in(tmp_path)))
    assert resumed.resumed_from == step
    expected, found = final_tensors(whole.metrics.parent), final_tensors(tmp_path)
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []
    assert without_timings(lines(resumed)) == without_timings(lines(whole))


@pytest.mark.slow
def test_an_overflow_halves_the_scale_and_is_neither_lost_nor_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(loss_scale, "FIRST", 2.0**24)  # 14 overflows to come
    result = train(in_half(plan_in(tmp_path, steps=24, probe=None)))
    assert (result.status, result.skipped, result.warnings) == ("finished", 0, [])
    assert not windows(result)[:1] or windows(result)[0]["step"] > 12  # lines before have no step that counted
    scale = windows(result)[-1]["loss_scale"]
    assert 2.0**8 <= scale <= 2.0**12
    assert torch.load(tmp_path / "state" / "00000024.pt")["loss_scale"]["value"].item() == scale


@pytest.mark.slow
def test_gradients_that_no_scale_saves_stop_the_run(tmp_path, monkeypatch):
    scaled = LossScale.scaled
    monkeypatch.setattr(LossScale, "scaled", lambda scale, loss: scaled(scale, loss) * torch.nan)
    with pytest.raises(SurgdinoError, match=r"steps in a row without a finite gradient.*precision=fp32"):
        train(in_half(plan_in(tmp_path, steps=40, probe=None)))


@pytest.mark.slow
def test_a_run_may_change_its_precision(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        stop_after(patched, 4)
        train(in_half(plan_in(tmp_path, probe=None), "fp32"))
    with monkeypatch.context() as patched:
        stop_after(patched, 4)
        assert train(in_half(plan_in(tmp_path, probe=None))).step == 8
    assert train(in_half(plan_in(tmp_path, probe=None), "bf16")).status == "finished"


def without_overflow(folder: Path, shard: bool) -> TrainResult:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(loss_scale, "FIRST", 2.0**8)
        return train(in_half(plan_without_chance(folder), shard=shard))


@pytest.mark.slow
@pytest.mark.parametrize("shard", [False, True], ids=["copies", "sharded"])
def test_two_processes_in_fp16_make_the_run_that_one_makes(tmp_path, shard):
    two = in_processes(2, without_overflow, tmp_path / "two", shard)
    one = without_overflow(tmp_path / "one", False)
    assert [result.skipped for result in two] == [0, 0]
    for ours, theirs in zip(windows(two[0]), windows(one), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=5e-3)
        assert ours["loss_scale"] == theirs["loss_scale"]


# TF32


@pytest.mark.parametrize("images", [8, 64], ids=["gram of images", "gram of dimensions"])
def test_the_coding_rate_is_fp32_where_the_networks_use_tf32(monkeypatch, images):
    seen = []
    real = torch.Tensor.__matmul__
    features = torch.nn.functional.normalize(torch.randn(2, images, 32), dim=-1).requires_grad_()
    expected = torch.autograd.grad(spread.coding_rate(features, 0.05).sum(), features)[0]
    monkeypatch.setattr(
        torch.Tensor,
        "__matmul__",
        lambda a, b: seen.append(torch.backends.cuda.matmul.allow_tf32) or real(a, b),
    )
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        found = torch.autograd.grad(spread.coding_rate(features, 0.05).sum(), features)[0]
        assert torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False
    assert seen == [False] * 3  # forward, and the gradients of both factors
    assert torch.equal(found, expected)
