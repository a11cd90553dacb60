"""Compiled blocks and bf16 between them change how fast a run is, and its losses by rounding alone."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch

from surgdino.backbone import packed, vit
from surgdino.backbone.vit import build_backbone
from surgdino.config import shipped, shipped_settings
from surgdino.engine import hardware
from surgdino.engine.methods.parts import fused
from surgdino.engine.methods.parts.prototypes import cross_entropy, sinkhorn
from surgdino.engine.plan import TrainPlan
from surgdino.engine.session import Session
from surgdino.engine.settings import HardwareSettings
from surgdino.engine.step import train_step
from surgdino.engine.train import open_session
from tests.engine.golden_losses import plan_of

STEPS = 6
SHALLOW = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 1, "num_heads": 2}


def losses(folder, steps: int = STEPS, method: str = "simdinov2", **hardware) -> list[float]:
    """Of the first steps of a golden run; the backbone learns from the first."""
    plan = plan_of(method, folder)
    train = replace(plan.train, head_warmup_steps=0, steps=steps)
    session = open_session(replace(plan, hardware=replace(plan.hardware, **hardware), train=train), print)
    with session.monitor:
        return [loss_of(session, batch) for batch in session.batches()]


def loss_of(session: Session, batch) -> float:
    train_step(session, batch)
    return session.monitor.last["loss"]


@pytest.mark.slow
def test_bf16_between_blocks_moves_the_losses_of_autocast_by_rounding(tmp_path, monkeypatch):
    fp32, found = losses(tmp_path / "fp32"), losses(tmp_path / "bf16", precision="bf16")
    monkeypatch.setattr(vit, "residual_dtype", lambda tokens: tokens.dtype)
    autocast = losses(tmp_path / "autocast", precision="bf16")
    assert found != autocast
    assert found == pytest.approx(autocast, rel=2e-3)
    assert found == pytest.approx(fp32, rel=2e-3)


# hardware.compile

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def without_inductor(monkeypatch) -> None:
    """Graphs are traced whole and run as they are: what a compiler makes of them needs minutes on a CPU."""
    torch._dynamo.reset()
    parts = packed.compiled_parts(backend="aot_eager", fullgraph=True)
    monkeypatch.setattr(packed, "compiled_parts", lambda: parts)
    compiled = partial(fused.compiled_function, backend="aot_eager", fullgraph=True)
    monkeypatch.setattr(fused, "compiled_function", compiled)
    monkeypatch.setattr(hardware, "compilation_fails", lambda device: None)


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [{}, {"activation_checkpointing": True}, {"precision": "bf16"}, {"method": "dino"}, {"method": "dinov2"}],
    ids=["plain", "recomputed", "bf16", "dino", "dinov2"],
)
def test_compiled_blocks_give_the_same_losses(tmp_path, without_inductor, more):
    eager, compiled = (losses(tmp_path / str(each), 4, compile=each, **more) for each in (False, True))
    assert compiled == pytest.approx(eager, rel=5e-3 if more.get("precision") else 1e-5)


@pytest.mark.slow
def test_another_temperature_and_number_of_patches_is_no_other_graph(without_inductor):
    torch._dynamo.utils.counters.clear()
    for patches, temperature in ((7, 0.04), (9, 0.05), (12, 0.06)):
        logits, targets = torch.rand(2, patches, 5).unbind()
        assigned = sinkhorn([logits], temperature, 2, lambda sums: sums, fused.fused)
        torch.testing.assert_close(assigned, sinkhorn([logits], temperature, 2, lambda sums: sums))
        torch.testing.assert_close(
            fused.fused(cross_entropy)(logits, targets, 0.1), cross_entropy(logits, targets, 0.1)
        )
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 3


@pytest.mark.slow
def test_mixed_sizes_are_compiled_once_each(without_inductor):
    """More graphs of a part than the 8 that torch keeps by default; of masked patches any number is the same graph."""
    backbone = build_backbone({**shipped_settings("model", "vit_toy"), "timm_kwargs": SHALLOW}, drop_path=0.0).eval()
    backbone.compiles = True
    torch._dynamo.utils.counters.clear()
    made = []
    with torch.no_grad():
        for masked in (3, 4):
            for side in range(16, 97, 8):
                backbone.forward_crops([(torch.rand(2, 3, side, side), None)], wanted=[torch.arange(masked)])
            made.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert made == [11, 11]


def asking(compile, tmp_path, images=64) -> TrainPlan:
    """A plan of the toy's, whose 40 tokens are 64 wide, that asks for `compile`."""
    plan = plan_of("simdinov2", tmp_path)
    chosen = shipped(HardwareSettings, "hardware/auto", compile=compile)
    return replace(plan, hardware=chosen, train=replace(plan.train, batch_size=images))


@pytest.mark.parametrize(
    ("compile", "device", "triton", "steps", "images", "expected"),
    [
        ("auto", CUDA, True, 2000, 20_000, True),
        ("auto", CUDA, True, 2000, 9_000, False),  # the GPU would wait for the host
        ("auto", CUDA, True, 1999, 20_000, False),
        ("auto", CUDA, False, 5000, 20_000, False),
        ("auto", CPU, True, 5000, 20_000, False),
        (True, CPU, False, 1, 1, True),
        (False, CUDA, True, 5000, 20_000, False),
    ],
)
def test_auto_compiles_where_it_pays(monkeypatch, tmp_path, compile, device, triton, steps, images, expected):
    monkeypatch.setattr(hardware, "compilation_fails", lambda device: None)
    monkeypatch.setattr(hardware, "find_spec", lambda name: object() if triton else None)
    assert hardware.compiles(asking(compile, tmp_path, images), device, steps, pytest.fail) is expected


def test_where_nothing_compiles_a_run_goes_on_uncompiled_and_says_so_once(monkeypatch, tmp_path):
    def no_compiler(function, **options):
        raise RuntimeError("Cannot find a working triton installation.\nMore lines")

    monkeypatch.setattr(torch, "compile", no_compiler)
    said = []
    assert not hardware.compiles(asking(True, tmp_path), CPU, 10, said.append)
    [line] = said
    assert "uncompiled" in line
    assert "Cannot find a working triton installation.;" in line
    assert "\n" not in line
