"""A run trains, can be stopped at any step, goes on as if it had not been, and says what goes wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from surgdino import config
from surgdino.backbone.checkpoint import load
from surgdino.backbone.preprocess import Preprocess
from surgdino.backbone.vit import build_backbone
from surgdino.config import shipped, shipped_settings
from surgdino.crops.loader import CropBatches
from surgdino.crops.settings import CropSettings
from surgdino.engine import step
from surgdino.engine.method import Method
from surgdino.engine.methods.simdinov2 import SimDINOv2
from surgdino.engine.plan import TrainPlan, TrainResult
from surgdino.engine.probing import ProbeSet
from surgdino.engine.probing.probe_set import Probing
from surgdino.engine.settings import HardwareSettings, PretrainSettings
from surgdino.engine.state_files import load_state
from surgdino.engine.train import train
from surgdino.errors import SurgdinoError
from surgdino.frames.content import Content
from tests import ROOT

TOY = {
    "name": "vit_toy",
    "timm": "vit_tiny_patch16_224",
    "timm_kwargs": {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 2, "num_heads": 2},
    "patch_size": 8,
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
}
PROBE = {"every": 5}
CROPS = config.shipped(CropSettings, "crops", global_size=32, local_size=16, local_count=2, ratio=(3 / 4, 4 / 3))


@dataclass
class MemoryStore:
    """The frame store's interface over a few generated frames: operations differ in colour and texture."""

    videos: int = 3
    each: int = 24
    frames: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(0)
        shown = []
        for video in range(self.videos):
            colour = rng.integers(60, 200, 3)
            for _ in range(self.each):
                coarse = rng.normal(0, 40, (4 + 2 * video, 4 + 2 * video, 1)).astype(np.float32)
                texture = cv2.resize(coarse, (48, 48), interpolation=cv2.INTER_CUBIC)[..., None]
                shown.append((colour + texture).clip(0, 255).astype(np.uint8))
        self.frames = np.stack(shown)

    def __len__(self) -> int:
        return len(self.frames)

    def read(self, i: int) -> np.ndarray:
        return self.frames[i]

    def content(self, i: int) -> Content:
        return Content("full", (0, 0, 48, 48), 24.0, 24.0, None)

    def video_id(self, i: int) -> str:
        return f"video{i // self.each:02d}"

    def operation(self, i: int) -> str:
        return f"toy/{i // self.each}"

    def time(self, i: int) -> float:
        return float(i % self.each) * 5


def plan_in(folder: Path, workers: int = 0, probe: dict | None = PROBE, **changes) -> TrainPlan:
    torch.manual_seed(0)
    settings = {
        "steps": 12,
        "batch_size": 8,
        "head_warmup_steps": 3,
        "warmup_steps": 2,
        "checkpoint_every": 5,
        "log_every": 4,
        "drop_path": 0.2,
    }
    store = MemoryStore()
    return TrainPlan(
        backbone=build_backbone(TOY, drop_path=0.2),
        model=TOY,
        method={**shipped_settings("method", "simdinov2"), "head_hidden": 64, "head_out": 32},
        store=store,
        augment={"horizontal_flip": 0.5},
        crops=CROPS,
        train=shipped(PretrainSettings, "pretrain", "train", **{**settings, **changes}),
        hardware=shipped(HardwareSettings, "hardware/cpu", precision="fp32", loader_workers=workers),
        folder=folder,
        data_hash="toy",
        model_json={"dataset": "toy", "operations": ["toy/0"]},
        probe=None if probe is None else Probing(ProbeSet(store, 24, Preprocess(32, (0.5,) * 3, (0.5,) * 3)), **probe),
        progress=False,
    )


def stop_after(monkeypatch: pytest.MonkeyPatch, step: int, number: int = signal.SIGTERM) -> None:
    """Send this process a signal in the middle of 1-based `step`."""
    update = Method.follow
    count = iter(range(1, 10_000))

    def and_signal(*args) -> None:
        update(*args)
        if next(count) == step:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(Method, "follow", and_signal)


def lines(result: TrainResult) -> list[dict]:
    return [json.loads(line) for line in result.metrics.read_text().splitlines()]


def without_timings(rows: list[dict]) -> list[dict]:
    timings = {"images_per_second", "data_wait", "probe_wait", "save_wait", "memory_mb", "probe_seconds"}
    return [{k: v for k, v in row.items() if k not in timings} for row in rows]


def final_tensors(folder: Path) -> dict[str, torch.Tensor]:
    state = load_state(folder / "state", print)
    flat = {f"{part}.{k}": v for part in ("student", "teacher") for k, v in state[part].items()}
    for parameter, moments in state["optimizer"]["state"].items():
        flat |= {f"optimizer.{parameter}.{k}": torch.as_tensor(v) for k, v in moments.items()}
    return flat


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    return train(plan_in(tmp_path_factory.mktemp("uninterrupted")))


def test_a_run_leaves_what_was_promised(uninterrupted):
    folder = uninterrupted.metrics.parent
    assert uninterrupted.status == "finished"
    assert uninterrupted.step == uninterrupted.steps == 12
    info = load(folder).info
    assert (info["dataset"], info["operations"], info["steps"]) == ("toy", ["toy/0"], 12)
    assert info["method"]["name"] == "simdinov2"
    assert list((folder / "tensorboard").iterdir())
    windows = [row for row in lines(uninterrupted) if "loss" in row]
    assert [row["step"] for row in windows] == [1, 4, 8, 12]
    wanted = {"comp", "expa", "patch", "gradient_norm", "lr", "momentum", "effective_rank"}
    assert wanted | {"images_per_second", "data_wait", "memory_mb", "skipped"} <= windows[0].keys()
    assert 0 < windows[0]["probe_wait"] < 1, "step 0 was measured"
    assert 0 < windows[2]["save_wait"] < 1, "step 5 was saved"
    assert [row["step"] for row in lines(uninterrupted) if "probe_score" in row] == [0, 5, 10, 12]
    assert uninterrupted.probes.start.as_dict()["cka_cls"] == pytest.approx(1, abs=1e-6)


def test_the_backbone_stays_put_while_the_head_warms_up_and_moves_after(tmp_path, monkeypatch):
    fresh = plan_in(tmp_path)
    before = {f"backbone.{k}": v.clone() for k, v in fresh.backbone.state_dict().items()}
    stop_after(monkeypatch, 3)
    train(fresh)
    warmed = load_state(tmp_path / "state", print)["student"]
    assert [k for k, v in before.items() if not torch.equal(warmed[k], v)] == []
    train(plan_in(tmp_path))
    trained = load_state(tmp_path / "state", print)["student"]
    assert [k for k, v in before.items() if torch.equal(trained[k], v)] == []
    assert [k for k in trained if k.startswith("head.") and torch.equal(trained[k], warmed[k])] == []


@pytest.mark.quick("7-2", "2-0")
@pytest.mark.parametrize("workers", [0, 2, 4])
@pytest.mark.parametrize("step", [2, 7])
def test_stopped_and_resumed_equals_uninterrupted_bit_for_bit(tmp_path, monkeypatch, uninterrupted, workers, step):
    """Step 2 lies in the head's warm-up, step 7 between two checkpoints and within a logged window."""
    with monkeypatch.context() as patched:
        stop_after(patched, step)
        stopped = train(plan_in(tmp_path, workers))
    assert (stopped.status, stopped.step) == ("stopped", step)
    resumed = train(plan_in(tmp_path, workers))
    assert (resumed.status, resumed.resumed_from) == ("finished", step)
    expected, found = final_tensors(uninterrupted.metrics.parent), final_tensors(tmp_path)
    assert expected.keys() == found.keys()
    assert [k for k in expected if not torch.equal(expected[k], found[k])] == []
    assert (resumed.first, resumed.last) == (uninterrupted.first, uninterrupted.last)
    of_steps = [[r for r in without_timings(lines(x)) if "loss" in r] for x in (resumed, uninterrupted)]
    assert of_steps[0] == of_steps[1]


def test_batches_that_fail_end_the_run_with_its_state_saved(tmp_path, monkeypatch, uninterrupted):
    make = CropBatches.__call__

    def fail_at_7(self, plan):
        if plan.step == 7:
            raise SurgdinoError("a worker process was killed")
        return make(self, plan)

    with monkeypatch.context() as patched:
        patched.setattr(CropBatches, "__call__", fail_at_7)
        with pytest.raises(SurgdinoError, match="worker"):
            train(plan_in(tmp_path))
    resumed = train(plan_in(tmp_path))
    assert (resumed.status, resumed.resumed_from) == ("finished", 7)
    expected, found = final_tensors(uninterrupted.metrics.parent), final_tensors(tmp_path)
    assert [k for k in expected if not torch.equal(expected[k], found[k])] == []


def test_killed_between_checkpoints_resumes_from_the_last_and_forgets_later_lines(tmp_path, monkeypatch, uninterrupted):
    class Killed(BaseException):
        pass

    update, count = Method.follow, iter(range(1, 100))

    def and_die(*args) -> None:
        update(*args)
        if next(count) == 9:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Method, "follow", and_die)
        with pytest.raises(Killed):
            train(plan_in(tmp_path))
    resumed = train(plan_in(tmp_path))
    assert resumed.resumed_from == 5
    expected, found = final_tensors(uninterrupted.metrics.parent), final_tensors(tmp_path)
    assert [k for k in expected if not torch.equal(expected[k], found[k])] == []
    assert without_timings(lines(resumed)) == without_timings(lines(uninterrupted))


def test_a_finished_run_says_so_and_does_nothing(tmp_path, uninterrupted):
    folder = uninterrupted.metrics.parent
    before = uninterrupted.metrics.read_text()
    again = train(plan_in(folder))
    assert again.status == "already finished"
    assert (again.first, again.last) == (uninterrupted.first, uninterrupted.last)
    assert again.metrics.read_text() == before


def test_ctrl_c_saves_as_well(tmp_path, monkeypatch):
    before = signal.getsignal(signal.SIGINT)  # a shell's background jobs begin with it ignored
    stop_after(monkeypatch, 1, signal.SIGINT)
    assert train(plan_in(tmp_path)).step == 1
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.slow
def test_sigterm_to_the_whole_process_group_saves_and_exits_cleanly(tmp_path):
    """A scheduler signals the loader's workers too; their death must not keep the run from saving."""
    script = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from pathlib import Path\n"
        "from tests.engine.test_training import plan_in, train\n"
        f"print(train(plan_in(Path({str(tmp_path)!r}), workers=2, steps=100000, checkpoint_every=100000)).status)"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    metrics = tmp_path / "metrics.jsonl"
    while run.poll() is None and not (metrics.exists() and '"loss"' in metrics.read_text()):
        time.sleep(0.1)
    os.killpg(run.pid, signal.SIGTERM)
    out, err = run.communicate(timeout=60)
    assert (run.returncode, out.split()[-1]) == (0, "stopped"), err
    saved = load_state(tmp_path / "state", print)
    assert saved["step"] >= 1
    assert (tmp_path / "checkpoint" / "backbone.safetensors").exists()


@pytest.mark.parametrize(
    ("changed", "word"),
    [({"batch_size": 4}, "train.batch_size"), ({"seed": 1}, "train.seed"), ({"lr": 1e-3}, "train.lr")],
)
def test_resuming_with_other_settings_names_them(tmp_path, monkeypatch, changed, word):
    with monkeypatch.context() as patched:
        stop_after(patched, 1)
        train(plan_in(tmp_path))
    with pytest.raises(SurgdinoError, match=word):
        train(plan_in(tmp_path, **changed))


def test_a_damaged_state_is_named_and_the_one_before_it_used(tmp_path, capsys):
    train(plan_in(tmp_path))
    newest = tmp_path / "state" / "00000012.pt"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 0xFF
    newest.write_bytes(content)
    resumed = train(plan_in(tmp_path))
    assert resumed.resumed_from == 10
    assert "00000012.pt" in capsys.readouterr().out
    for file in (tmp_path / "state").iterdir():
        file.write_bytes(b"not a state")
    with pytest.raises(SurgdinoError, match="every saved state is damaged"):
        train(plan_in(tmp_path))


def test_a_gradient_that_is_not_finite_changes_nothing_and_is_counted(tmp_path, monkeypatch):
    loss_of, calls = SimDINOv2.loss, iter(range(100))

    def with_a_bad_step(*args):
        loss, terms = loss_of(*args)
        factor = torch.nan if next(calls) == 5 else 1.0
        return loss * factor, {k: v * factor for k, v in terms.items()}

    monkeypatch.setattr(SimDINOv2, "loss", with_a_bad_step)
    result = train(plan_in(tmp_path))
    assert result.skipped == 1
    assert all(np.isfinite(v) for v in result.last.values())
    assert any("not finite" in w for w in result.warnings)
    assert all(torch.isfinite(v).all() for v in final_tensors(tmp_path).values())


@pytest.mark.slow
def test_a_run_without_finite_gradients_stops_and_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    """From step 8 on every gradient is bad: nothing changes any more, what was saved stands, and the run can go on."""
    passes, count = step.compute_gradients, iter(range(1, 100))

    def poisoned(session, *arguments):
        terms = passes(session, *arguments)
        if next(count) >= 8:
            session.student.backbone.mask_token.grad[0] = torch.nan
        return terms

    with monkeypatch.context() as patched:
        patched.setattr(step, "compute_gradients", poisoned)
        with pytest.raises(SurgdinoError, match=r"10 steps in a row without a finite gradient.*train\.lr"):
            train(plan_in(tmp_path, steps=40, checkpoint_every=7, log_every=1))
    assert load(tmp_path).info["steps"] == 14
    good, bad = (torch.load(tmp_path / "state" / f"000000{step}.pt") for step in ("07", "14"))
    assert [k for k, v in good["student"].items() if not torch.equal(v, bad["student"][k])] == []
    assert all(torch.isfinite(v).all() for v in final_tensors(tmp_path).values())
    assert train(plan_in(tmp_path, steps=40, checkpoint_every=7, log_every=1)).status == "finished"


def test_a_batch_larger_than_the_store_is_refused(tmp_path):
    with pytest.raises(SurgdinoError, match=r"batch_size.*72 frames"):
        train(plan_in(tmp_path, batch_size=100))


@pytest.mark.slow
def test_the_objective_improves_and_stays_away_from_collapse(tmp_path):
    result = train(plan_in(tmp_path, steps=50, batch_size=16, lr=2e-3, checkpoint_every=50))
    assert result.last["loss"] < result.first["loss"] - 0.1
    assert result.last["expa"] > 1.3 * result.collapse["expa"]
    assert not [w for w in result.warnings if "collapse" in w]
    assert result.probes.last.as_dict()["cka_cls"] < 0.999
