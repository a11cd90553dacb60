"""The training loop of a stage: exact resume, SIGTERM, the best state kept, early end, two processes as one."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from surgdino import distributed
from surgdino.config import shipped
from surgdino.crops.sampler import FrameSampler
from surgdino.engine.hardware import Hardware
from surgdino.errors import SurgdinoError
from surgdino.tasks.settings import HeadTraining
from surgdino.tasks.training.batches import FrameFeatures
from surgdino.tasks.training.fit import StageResult, fit, set_rates
from surgdino.tasks.training.stage import Stage, StageTraining, resolve
from surgdino.tasks.training.tuning import head_groups
from tests.engine.gloo import in_processes

CPU = torch.device("cpu")
TRAINING = StageTraining(steps=24, batch_size=8, lr=0.02, log_every=3, validate_every=6, checkpoint_every=5, patience=0)


def train(
    stage: Stage, folder: Path, training: StageTraining = TRAINING, dtype: torch.dtype = torch.float32, **begun_with
) -> StageResult:
    folder.mkdir(exist_ok=True)
    return fit(stage, training, folder, hardware=Hardware(CPU, dtype), begun_with=begun_with)


def stage_on_numbers(*, validate=None, weights=None, dropout: float = 0.3, at_step=lambda: None) -> Stage:
    """Two classes that a linear layer behind dropout tells apart: dropout shows whether random numbers resume too."""
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 2, 50)
    features = rng.normal(size=(50, 6)).astype(np.float32) + targets[:, None]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Dropout(dropout), nn.Linear(6, 16), nn.GELU(), nn.Linear(16, 2))

    def loss(model, batch):
        at_step()
        return {"loss": F.cross_entropy(model(batch["features"]).float(), batch["targets"])}

    data = FrameFeatures(features, targets, weights)
    return Stage("numbers", model, head_groups(model), data, loss, validate)


def accuracy(model: nn.Module) -> dict[str, float]:
    """On other numbers, coarse enough that scores differ from step to step."""
    rng = np.random.default_rng(1)
    targets = torch.from_numpy(rng.integers(0, 2, 400))
    features = torch.from_numpy(rng.normal(size=(400, 6)).astype(np.float32)) + targets[:, None]
    assert not model.training
    return {"accuracy": float((model(features).argmax(1) == targets).double().mean()), "other": 0.0}


def killed_at(step: int):
    """SIGTERM in the middle of the step that follows `step` others."""
    count = iter(range(10_000))

    def at_step() -> None:
        if next(count) == step:
            os.kill(os.getpid(), signal.SIGTERM)

    return at_step


def rows_of(folder: Path) -> list[dict]:
    timings = ("images_per_second", "data_wait", "memory_mb", "validation_wait", "save_wait")
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in timings} for row in rows]


def assert_bit_equal(ours: dict, theirs: dict) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert torch.equal(ours[name], tensor), name


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> tuple[Path, Stage, StageResult]:
    folder = tmp_path_factory.mktemp("whole")
    stage = stage_on_numbers(validate=accuracy)
    return folder, stage, train(stage, folder)


@pytest.mark.parametrize("step", [0, 4, 13, 23])
def test_a_stopped_stage_goes_on_bit_for_bit(uninterrupted, tmp_path, step):
    folder, whole, expected = uninterrupted
    first = train(stage_on_numbers(validate=accuracy, at_step=killed_at(step)), tmp_path)
    assert first.status == ("finished" if step == 23 else "stopped")
    assert first.step == step + 1
    again = stage_on_numbers(validate=accuracy)
    result = train(again, tmp_path)
    assert result.status == ("already finished" if step == 23 else "finished")
    assert_bit_equal(again.model.state_dict(), whole.model.state_dict())
    assert_bit_equal(result.last, expected.last)
    assert (result.best_step, result.score) == (expected.best_step, expected.score)
    assert rows_of(tmp_path) == rows_of(folder)


def test_the_loss_falls_and_the_best_state_is_put_back(uninterrupted):
    folder, stage, result = uninterrupted
    rows = rows_of(folder)
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses[-1] < 0.8 * losses[0]
    scores = {row["step"]: row["val_accuracy"] for row in rows if "val_accuracy" in row}
    assert list(scores) == [6, 12, 18, 24]
    assert result.score == max(scores.values())
    assert scores[result.best_step] == result.score
    assert accuracy(stage.model)["accuracy"] == result.score
    assert (result.score_name, result.status) == ("accuracy", "finished")


def test_a_finished_stage_is_not_trained_again(uninterrupted):
    folder, whole, _ = uninterrupted
    before = (folder / "metrics.jsonl").read_bytes()
    again = stage_on_numbers(validate=accuracy, at_step=lambda: pytest.fail("a step was done"))
    assert train(again, folder).status == "already finished"
    assert_bit_equal(again.model.state_dict(), whole.model.state_dict())
    assert (folder / "metrics.jsonl").read_bytes() == before


def scripted(scores: list[float]):
    left = iter(scores)
    return lambda model: {"score": next(left)}


def test_a_stage_ends_when_no_better_validation_comes(tmp_path):
    stage = stage_on_numbers(validate=scripted([0.5, 0.7, 0.7, 0.6]))
    result = train(stage, tmp_path, replace(TRAINING, patience=2, validate_every=2))
    assert (result.step, result.best_step, result.ended_early) == (8, 4, True)  # a tie is not better
    resumed = stage_on_numbers(validate=scripted([]))
    assert train(resumed, tmp_path, replace(TRAINING, patience=2, validate_every=2)).status == "already finished"


def test_a_validation_that_is_no_number_is_never_the_best(tmp_path):
    stage = stage_on_numbers(validate=scripted([float("nan"), 0.1, float("nan"), float("nan")]))
    result = train(stage, tmp_path)
    assert (result.best_step, result.score) == (12, 0.1)


def test_without_validation_the_last_step_counts(tmp_path):
    stage = stage_on_numbers()
    result = train(stage, tmp_path)
    assert (result.best_step, result.score, result.score_name, result.ended_early) == (24, None, None, False)
    assert_bit_equal(stage.model.state_dict(), result.last)


@pytest.mark.parametrize(
    ("change", "begun_with", "named"),
    [({"lr": 0.5}, {}, "train.lr"), ({"seed": 3}, {}, "train.seed"), ({}, {"weights": "other"}, "weights")],
)
def test_a_stage_does_not_go_on_with_other_settings(tmp_path, change, begun_with, named):
    train(stage_on_numbers(at_step=killed_at(3)), tmp_path, weights="one")
    with pytest.raises(SurgdinoError, match=f"begun with another {named}"):
        train(stage_on_numbers(), tmp_path, replace(TRAINING, **change), **{"weights": "one", **begun_with})


def test_a_step_without_a_finite_gradient_changes_nothing_and_many_stop_the_run(tmp_path):
    stage = stage_on_numbers(dropout=0.0)
    before = {name: tensor.clone() for name, tensor in stage.model.state_dict().items()}
    stage.loss = lambda model, batch: {"loss": model(batch["features"]).sum() * float("nan")}
    with pytest.raises(SurgdinoError, match="without a finite gradient"):
        train(stage, tmp_path)
    assert_bit_equal(stage.model.state_dict(), before)


def test_weights_draw_rare_samples_as_often_as_they_say(tmp_path):
    weights = np.where(np.arange(50) == 7, 49.0, 1.0)
    data = stage_on_numbers(weights=weights).data
    sampler = FrameSampler(len(data), 32, seed=0, start_step=0, steps=100, weights=data.weights)
    drawn = torch.cat([batch.tensors["index"] for batch in data.batches(sampler)])
    assert 0.45 < (drawn == 7).double().mean() < 0.55


def test_rates_warm_up_fall_as_a_cosine_and_keep_their_groups_factor():
    decaying, plain = nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.zeros(2))
    groups = [
        {"params": [decaying], "lr_scale": 0.5, "decays": True},
        {"params": [plain], "lr_scale": 1.0, "decays": False},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1.0)
    training = StageTraining(lr=1.0, min_lr=0.1, warmup=0.2, weight_decay=0.3)
    rates = [set_rates(optimizer, step, 10, training) for step in range(10)]
    assert rates[:2] == [0.5, 1.0]
    assert rates[2] == 1.0
    assert rates[-1] == pytest.approx(0.1)
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.05, 0.1])
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.0]


def test_what_the_user_sets_counts_more_than_the_task_and_less_than_its_own_settings():
    user = shipped(HeadTraining, "finetune", "train", lr=0.5, epochs=3)
    chosen = resolve(user, {"lr": 0.1, "steps": 7, "clip": 2.0}, {"clip": 4.0}, overrides={"lr": 0.9})
    assert (chosen.lr, chosen.epochs, chosen.steps, chosen.clip) == (0.9, 3, None, 4.0)
    only_steps = shipped(HeadTraining, "finetune", "train", steps=5)
    assert resolve(only_steps, {"epochs": 9}, overrides={}).total_steps(1000) == 5
    with pytest.raises(KeyError, match="did you mean 'lr'"):
        resolve(user, {"lrr": 1}, overrides={})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("lr", -1.0),
        ("epochs", 0.0),
        ("batch_size", 0),
        ("layer_decay", 1.5),
        ("warmup", 2.0),
        ("crop_scale", (0.9, 0.1)),
    ],
)
def test_settings_that_cannot_be_are_refused(key, value):
    with pytest.raises(SurgdinoError, match=f"train.{key} cannot be used"):
        shipped(HeadTraining, "finetune", "train", **{key: value})


def train_in(folder: str) -> None:
    """One of several processes, without dropout, whose draws are a process's own."""
    stage = stage_on_numbers(validate=accuracy, dropout=0.0)
    result = train(stage, Path(folder))
    if distributed.is_main():
        torch.save({"model": stage.model.state_dict(), "score": result.score}, Path(folder) / "told.pt")


@pytest.mark.slow
def test_two_processes_train_as_one_and_one_goes_on_from_two(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    single = stage_on_numbers(validate=accuracy, dropout=0.0)
    alone = train(single, tmp_path / "one")
    in_processes(2, train_in, str(tmp_path / "two"))
    told = torch.load(tmp_path / "two" / "told.pt", weights_only=True)
    for name, tensor in single.model.state_dict().items():
        assert torch.allclose(told["model"][name], tensor, atol=1e-5), name
    assert told["score"] == pytest.approx(alone.score, abs=0.01)
    again = stage_on_numbers(validate=accuracy, dropout=0.0)
    assert train(again, tmp_path / "two").status == "already finished"


@pytest.mark.parametrize("at", ["training", "scoring"])
def test_too_little_memory_is_one_line_and_the_stage_goes_on_as_if_nothing_had_been(tmp_path, at):
    def fail() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    def score(model: nn.Module) -> dict[str, float]:
        if at == "scoring" and next(scored) == 2:
            fail()
        return accuracy(model)

    count, scored = iter(range(1, 100)), iter(range(1, 100))
    stage = stage_on_numbers(validate=score, at_step=lambda: fail() if at == "training" and next(count) == 8 else None)
    with pytest.raises(SurgdinoError, match=r"stage numbers, step \d+: .*needed 2.00 GiB more.*the same command"):
        train(stage, tmp_path / "parts")
    resumed = train(stage_on_numbers(validate=accuracy), tmp_path / "parts")
    whole = train(stage_on_numbers(validate=accuracy), tmp_path / "whole")
    assert resumed.score == whole.score
    assert all(torch.equal(resumed.last[name], whole.last[name]) for name in whole.last)


def test_a_head_learns_in_fp16_and_resumes(tmp_path):
    def stop() -> None:
        if next(count) == 9:
            os.kill(os.getpid(), signal.SIGTERM)

    whole = train(stage_on_numbers(validate=accuracy), tmp_path / "whole", dtype=torch.float16)
    count = iter(range(1, 100))
    assert train(stage_on_numbers(at_step=stop), tmp_path / "parts", dtype=torch.float16).status == "stopped"
    resumed = train(stage_on_numbers(validate=accuracy), tmp_path / "parts", dtype=torch.float16)
    assert all(torch.equal(resumed.last[name], whole.last[name]) for name in whole.last)
    assert whole.score == pytest.approx(train(stage_on_numbers(validate=accuracy), tmp_path / "fp32").score, abs=0.03)
