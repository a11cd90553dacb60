"""What a fake device cannot show: a card's losses are the CPU's, no step waits, a run goes on where it stopped."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

from surgdino import discovery
from surgdino.backbone.vit import build_backbone
from surgdino.bench.loop import over_and_over, whole_steps
from surgdino.config import shipped
from surgdino.crops.augment.build import transforms
from surgdino.engine import hardware
from surgdino.engine.methods.parts.views import seed_step
from surgdino.engine.plan import TrainPlan
from surgdino.engine.probing.frames import TaskLabels
from surgdino.engine.saving import save
from surgdino.engine.settings import HardwareSettings
from surgdino.engine.state_files import load_state
from surgdino.engine.step import train_step
from surgdino.engine.train import measure, open_session, train
from surgdino.errors import SurgdinoError
from tests.engine.methods.test_training import section
from tests.engine.test_guides import facts_of
from tests.engine.test_guides import section as section_of_guides
from tests.engine.test_training import TOY, final_tensors, plan_in, stop_after

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.slow,
]
METHODS = discovery.names("surgdino.engine.methods")
HARDWARE = ("precision", "compile", "activation_checkpointing", "loader_workers", "fit")
EFFECTS = {name: {"p": 1.0} for name, kind in transforms().items() if kind.has_batch_form()}
CHANGES = {
    "plain": {},
    "all": {"accumulate": 2, "low_rank": 2, "frozen_blocks": 1, "pull": 1.0},
    "parts": {"accumulate": 2, "frozen_blocks": 1, "pull": 1.0},
    "guided": {"guides": section_of_guides(), "accumulate": 2},
    "anchored": {"gram": 1.0, "gram_scale": 2},
    "painted": {"augment": {"on": "gpu", "horizontal_flip": 0.5, "transforms": EFFECTS}},
}


def plan_on(device: str, method: str, folder: Path, change: str = "plain", *, drop_path=0.0, **more) -> TrainPlan:
    """The toy of the engine's tests; heads learn from the first step, and the backbone too."""
    changes = dict(CHANGES[change])
    parts = {key: changes.pop(key) for key in ("guides", "augment") if key in changes}
    settings = {key: more.pop(key) for key in HARDWARE if key in more}
    plan = labelled(plan_in(folder, head_warmup_steps=0, drop_path=drop_path, **{"probe": None, **changes, **more}))
    settings = {"precision": "fp32", "compile": False, "loader_workers": 0, **settings}
    torch.manual_seed(0)
    backbone = build_backbone(TOY, drop_path=drop_path)
    chosen = shipped(HardwareSettings, f"hardware/{device}", **settings)
    return replace(plan, backbone=backbone, method=section(method), hardware=chosen, facts=facts_of(), **parts)


def labelled(plan: TrainPlan) -> TrainPlan:
    """With something for the probe, where there is one, to read."""
    if plan.probe is not None:
        frames = plan.probe.frames
        frames.labels = [TaskLabels("phase", ("a", "b"), np.ones(len(frames), bool), np.arange(len(frames)) % 2)]
    return plan


def losses(plan: TrainPlan) -> list[float]:
    """Of every step."""
    session = open_session(replace(plan, train=replace(plan.train, log_every=1)), print)
    with session.monitor:
        return [(train_step(session, batch), session.monitor.last["loss"])[1] for batch in session.batches()]


@pytest.fixture
def exact(monkeypatch) -> None:
    """fp32 means fp32."""
    monkeypatch.setattr(hardware.precision, "set_tf32", lambda *_: False)
    torch.backends.cuda.matmul.allow_tf32 = False


@pytest.mark.parametrize("change", ["plain", "parts", "anchored"])
@pytest.mark.parametrize("method", METHODS)
def test_fp32_losses_are_those_of_the_cpu(tmp_path, exact, method, change):
    expected, found = (losses(plan_on(device, method, tmp_path / device, change)) for device in ("cpu", "cuda"))
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("method", METHODS)
def test_half_precision_moves_the_losses_by_rounding(tmp_path, exact, method, precision):
    expected = losses(plan_on("cuda", method, tmp_path / "fp32"))
    with mock.patch("surgdino.engine.loss_scale.FIRST", 1.0):
        found = losses(plan_on("cuda", method, tmp_path / precision, precision=precision))
    assert found == pytest.approx(expected, rel=1e-2, abs=1e-2)


@pytest.mark.parametrize("more", [{}, {"activation_checkpointing": True}], ids=["plain", "recomputed"])
@pytest.mark.parametrize(("method", "precision"), [("simdinov2", "fp32"), ("simdinov2", "bf16"), ("dinov2", "bf16")])
def test_compiled_losses_are_the_uncompiled(tmp_path, exact, method, precision, more):
    eager, compiled = (
        losses(plan_on("cuda", method, tmp_path / str(each), precision=precision, compile=each, drop_path=0.2, **more))
        for each in (False, True)
    )
    assert compiled == pytest.approx(eager, rel=1e-4 if precision == "fp32" else 3e-2)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("method", METHODS)
def test_an_unlogged_step_never_waits(tmp_path, method, change):
    plan = plan_on("cuda", method, tmp_path, change, log_every=100, precision="bf16", drop_path=0.2)
    session = open_session(plan, print)
    ready = [batch.pin_memory() for batch in itertools.islice(session.batches(), 3)]
    with session.monitor:
        whole_steps(session, over_and_over(session, ready[0]), 1, [])  # makes what is made once a run
        whole_steps(session, over_and_over(session, ready[1]), 1, [])
        torch.cuda.set_sync_debug_mode("error")
        try:
            whole_steps(session, over_and_over(session, ready[2]), 1, [])
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.fixture
def deterministic() -> Iterator[None]:
    """Sums in a fixed order, where torch has such a kernel: of attention's gradients in fp32."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("step", [2, 7])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_stopped_and_resumed_bit_for_bit(tmp_path, monkeypatch, deterministic, precision, step):
    """Of crops of one size: torch sums the gradients of interpolated positions in any order."""

    def plan(name: str) -> TrainPlan:
        made = plan_on("cuda", "simdinov2", tmp_path / name, precision=precision, drop_path=0.2, probe={"every": 5})
        return replace(made, crops=replace(made.crops, local_size=made.crops.global_size))

    train(plan("whole"))
    with monkeypatch.context() as patched:
        stop_after(patched, step)
        assert train(plan("stopped")).status == "stopped"
    assert train(plan("stopped")).resumed_from == step
    expected, found = (final_tensors(tmp_path / name) for name in ("whole", "stopped"))
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []


def test_what_is_saved_beside_the_training_is_what_was_there(tmp_path):
    session = open_session(plan_on("cuda", "simdinov2", tmp_path, precision="bf16"), print)
    with session.monitor, session.writer:
        for batch in session.batches():
            train_step(session, batch)
            if session.step == 3:
                expected = {key: value.clone() for key, value in session.student.state_dict().items()}
                save(session)  # the steps that follow change all of it
            if session.step == 6:
                break
        session.writer.wait()
    state = load_state(tmp_path / "state", print)
    assert state["step"] == 3
    for name, value in expected.items():
        assert torch.equal(state["student"][name], value.cpu()), name


@pytest.mark.parametrize("alpha", [1.0, 0.5])
def test_probes_run_on_the_card(tmp_path, alpha):
    plan = plan_on("cuda", "simdinov2", tmp_path, precision="bf16", probe={"every": 5}, ship_alpha=alpha)
    session = open_session(plan, print)
    measure(session)
    assert session.probes.start is not None


@pytest.mark.parametrize("effect", EFFECTS)
def test_an_effect_painted_on_the_card_is_the_one_of_the_cpu(tmp_path, effect):
    augment = {"on": "gpu", "horizontal_flip": 0.5, "transforms": {effect: {"p": 1.0}}}
    session = open_session(replace(plan_on("cuda", "simdinov2", tmp_path), augment=augment), print)
    [batch] = itertools.islice(session.batches(), 1)
    seed_step(0, 0, 0)
    here, there = batch.painted(torch.device("cpu")), batch.painted(torch.device("cuda"))
    for name in ("global_crops", "local_crops"):
        apart = (getattr(here, name).int() - getattr(there, name).cpu().int()).abs()
        assert (apart > 1).float().mean() < 0.01, name


def test_workers_hand_over_pinned_batches(tmp_path):
    session = open_session(plan_on("cuda", "simdinov2", tmp_path, loader_workers=2), print)
    batches = session.batches()
    batch = next(batches)
    batches.close()
    assert batch.global_crops.is_pinned()
    assert batch.mask_weight.is_pinned()


def test_too_little_memory_is_one_line_and_a_smaller_micro_batch_fits(tmp_path):
    def plan(name: str, **more) -> TrainPlan:
        made = plan_on("cuda", "simdinov2", tmp_path / name, batch_size=64, steps=2, **more)
        return replace(made, crops=replace(made.crops, global_size=128))

    torch.cuda.reset_peak_memory_stats()
    train(plan("whole"))
    share = 0.7 * torch.cuda.max_memory_allocated() / torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(share)
    try:
        with pytest.raises(SurgdinoError, match=r"the GPU's memory is too small.*train\.accumulate=2"):
            train(plan("short"))
        torch.cuda.empty_cache()
        assert train(plan("fitted", fit=True)).status == "finished"
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
