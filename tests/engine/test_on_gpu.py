"""What a fake device cannot show: a card's losses are the CPU's, no step waits, a run goes on where it stopped."""

from __future__ import annotations

import itertools
import json
import os
import signal
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
from surgdino.cli.main import main
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
from surgdino.tasks import task_names
from surgdino.tasks.training import fit
from surgdino.verbs import finetune
from tests.engine.methods.test_training import section
from tests.engine.test_guides import facts_of
from tests.engine.test_guides import section as section_of_guides
from tests.engine.test_training import TOY, final_tensors, plan_in, stop_after
from tests.tasks.sets import set_of, words_of

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


FINETUNED = [
    f"{task} backbone={tuning} augment=surgical augment.on=gpu"
    for task in task_names()
    for tuning in ("frozen", "full")
]
FINETUNED += ["segmentation backbone=last4 task.head=decoder", "triplet backbone=last4 task.head=query"]


def finetuned(case: str, root: Path, run: str, *more: str) -> list[str]:
    """The words of a fine-tuning on a small set of the task's."""
    task, *words = case.split()
    if not (root / "data").exists():
        set_of(task).write(root / "data")
    return words_of(task, root / "data", root / run, "hardware=cuda", *words, *more)


@pytest.mark.parametrize("case", FINETUNED)
def test_an_unlogged_step_of_a_finetuning_never_waits(tmp_path, monkeypatch, case):
    """What `set_sync_debug_mode` sees; the pairing of queries with objects waits for an event, which it does not."""

    def watched(stage, training, folder, *, hardware, **_):
        run = fit._Run(stage, replace(training, steps=9, epochs=1, log_every=100), folder, hardware, {}, None)
        for (batch, waited), step in zip(run.batches(), range(4), strict=False):
            torch.cuda.set_sync_debug_mode("error" if step == 3 else "default")
            try:
                fit._train_step(run, batch, waited)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        return run.result("finished")

    monkeypatch.setattr(finetune, "fit", watched)
    monkeypatch.setattr(finetune, "save", lambda *_: None)
    monkeypatch.setattr(finetune, "conclude", lambda *_: None)
    assert main(finetuned(case, tmp_path, "run", "hardware.precision=bf16")) == 0


@pytest.mark.parametrize("case", ["phase backbone=full", "segmentation backbone=frozen", "instances backbone=frozen"])
def test_a_finetuning_loses_as_on_the_cpu(tmp_path, exact, case):
    """With nothing dropped, and no points drawn: those are a device's own draws."""
    found = []
    for device in ("cpu", "cuda"):
        more = (f"hardware={device}", "train.steps=4", "train.log_every=1", "train.drop_path=0", "augment.on=cpu")
        assert main(finetuned(case, tmp_path, device, *more)) == 0
        rows = map(json.loads, (tmp_path / device / "metrics.jsonl").read_text().splitlines())
        found.append([row["loss"] for row in rows if "loss" in row and row["stage"] in ("frame", "head")])
    assert found[1][:2] == pytest.approx(found[0][:2], rel=2e-2)


def test_a_finetuning_stopped_and_resumed_bit_for_bit(tmp_path, monkeypatch, deterministic):
    def words(run: str) -> list[str]:
        more = ("augment=surgical", "augment.on=gpu", "train.steps=8", "train.checkpoint_every=2")
        return finetuned("tools backbone=full", tmp_path, run, *more)

    assert main(words("whole")) == 0
    step, count = fit._train_step, iter(range(1, 100))

    def stopped(*arguments) -> None:
        step(*arguments)
        if next(count) == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(fit, "_train_step", stopped)
        assert main(words("stopped")) == 0
    assert main(words("stopped")) == 0
    expected, found = (load_state(tmp_path / run / "state" / "frame", print)["model"] for run in ("whole", "stopped"))
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []


def test_what_a_finetuning_saves_is_what_was_there(tmp_path, monkeypatch):
    """Beside steps that change all of it."""
    save, states = fit._Run.save, {}

    def kept(run) -> None:
        states[run.step] = {name: tensor.clone() for name, tensor in run.stage.model.state_dict().items()}
        save(run)

    monkeypatch.setattr(fit._Run, "save", kept)
    words = finetuned("tools backbone=full", tmp_path, "run", "train.steps=8", "train.checkpoint_every=3")
    assert main(words) == 0
    for step in (6, 8):
        saved = torch.load(tmp_path / "run" / "state" / "frame" / f"{step:08d}.pt", weights_only=True)["model"]
        assert [name for name, tensor in states[step].items() if not torch.equal(saved[name], tensor.cpu())] == []
