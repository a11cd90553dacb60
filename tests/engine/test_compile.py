"""Compiled blocks and bf16 between them change how fast a run is, and its losses by rounding alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from surgdino.backbone import vit
from surgdino.engine.session import Session
from surgdino.engine.step import train_step
from surgdino.engine.train import open_session
from tests.engine.golden_losses import plan_of

STEPS = 6


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


@pytest.fixture
def bf16_between_blocks(monkeypatch) -> None:
    """What a GPU does, on the CPU."""
    monkeypatch.setattr(vit, "residual_dtype", lambda tokens: torch.bfloat16)


def test_bf16_between_blocks_moves_the_losses_of_autocast_by_rounding(tmp_path, request):
    fp32, autocast = losses(tmp_path / "fp32"), losses(tmp_path / "autocast", precision="bf16")
    request.getfixturevalue("bf16_between_blocks")
    found = losses(tmp_path / "bf16", precision="bf16")
    assert found != autocast
    assert found == pytest.approx(autocast, rel=2e-3)
    assert found == pytest.approx(fp32, rel=2e-3)
