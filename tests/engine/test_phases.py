"""Phases of a run: their settings, positions that grow once, a stop anywhere, any layout."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from surgdino.backbone.checkpoint import load
from surgdino.backbone.vit import build_backbone
from surgdino.engine.optim import rates_at
from surgdino.engine.phases import open_phases
from surgdino.engine.plan import TrainPlan
from surgdino.engine.train import open_session, train
from surgdino.errors import SurgdinoError
from tests.engine.gloo import in_processes
from tests.engine.test_processes import assert_same_run, plan_without_chance
from tests.engine.test_training import CROPS, TOY, final_tensors, lines, plan_in, stop_after

LARGER = {"crops.global_size": 48, "crops.local_size": 24}
GENTLER = {"train.lr": 1e-4, "train.batch_size": 4, "train.warmup_steps": 1}
TWO = ({"steps": 6}, {"steps": 5, **LARGER, **GENTLER})
GUIDES = {"time": {"name": "time", "weight": 0.1, "bins": 0, "head_hidden": 0}}


def in_phases(plan: TrainPlan, entries=TWO) -> TrainPlan:
    plan = replace(plan, train=replace(plan.train, steps=None))
    return replace(plan, phases=open_phases(entries, plan.crops, plan.train, plan.augment, plan.guides, 8))


def phased(folder: Path, entries=TWO, **changes: Any) -> TrainPlan:
    return in_phases(plan_in(folder, **changes), entries)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory):
    return train(phased(tmp_path_factory.mktemp("whole"), pull=1.0, ship_alpha=0.5))


def test_a_run_goes_through_its_phases_and_ships_the_grid_of_the_last(whole):
    folder = whole.metrics.parent
    assert (whole.status, whole.step, whole.resumed_from) == ("finished", 11, None)
    rows = [row for row in lines(whole) if "loss" in row]
    assert [(row["step"], row["phase"]) for row in rows] == [(1, 1), (4, 1), (6, 1), (8, 2), (11, 2)]
    assert [row["lr"] for row in rows][3:] == pytest.approx(
        [
            rates_at(
                step, 5, replace(plan_in(folder).train, lr=1e-4, warmup_steps=1, head_warmup_steps=0), (1, 1)
            ).backbone_lr
            for step in (1, 4)
        ]
    )
    loaded = load(folder)
    assert loaded.info["timm_kwargs"]["img_size"] == loaded.info["image_size"] == 48
    assert [each["crops.global_size"] for each in loaded.info["phases"]] == [32, 48]
    assert loaded.backbone.grid == (6, 6)
    assert loaded.backbone(torch.zeros(1, 3, 48, 48)).patches.shape == (1, 36, 64)


@pytest.mark.quick("boundary")
@pytest.mark.parametrize(
    "step", [2, 5, 6, 7], ids=["in the first", "before the last step", "at the boundary", "in the second"]
)
def test_stopped_and_resumed_equals_uninterrupted_bit_for_bit(tmp_path, monkeypatch, whole, step):
    with monkeypatch.context() as patched:
        stop_after(patched, step)
        stopped = train(phased(tmp_path, pull=1.0, ship_alpha=0.5))
    assert (stopped.status, stopped.step) == ("stopped", step)
    resumed = train(phased(tmp_path, pull=1.0, ship_alpha=0.5))
    assert (resumed.status, resumed.resumed_from) == ("finished", step)
    expected, found = final_tensors(whole.metrics.parent), final_tensors(tmp_path)
    assert expected.keys() == found.keys()
    assert [key for key in expected if not torch.equal(expected[key], found[key])] == []
    assert resumed.last == whole.last


def test_positions_are_interpolated_once_and_nothing_else_changes(tmp_path, monkeypatch):
    stop_after(monkeypatch, 6)
    train(phased(tmp_path))
    ended = {k: v.clone() for k, v in final_tensors(tmp_path).items()}
    session = open_session(phased(tmp_path), print)
    student = {f"student.{k}": v for k, v in session.student.state_dict().items()}
    assert [k for k in student if not k.endswith("pos_embed") and not torch.equal(student[k], ended[k])] == []
    images = torch.randn(2, 3, 48, 48)
    before = session.student.make_teacher().backbone
    assert before.grid == (6, 6)
    old = plan_in(tmp_path).backbone
    old.load_state_dict({k.removeprefix("student.backbone."): v for k, v in ended.items() if "student.backbone." in k})
    with torch.no_grad():  # timm interpolates at run time what was interpolated here
        torch.testing.assert_close(before(images).cls, old.eval()(images).cls)


def test_images_go_on_where_the_phase_before_ended(tmp_path):
    session = open_session(phased(tmp_path), print)
    first, second = session.plan.stages
    assert (second.start, second.stop, second.seen) == (6, 11, 48)
    session.phase, session.plan, session.step = second, session.plan.during(second), 6
    shown = [i for batch in session.batches() for i in batch.index.tolist()]
    session.phase, session.plan, session.step = first, session.plan.during(first), 0
    shown = [i for batch in session.batches() for i in batch.index.tolist()] + shown
    assert len(shown) == 48 + 20
    assert len(set(shown)) == 68, "no frame twice before all of the 72 were shown"


@pytest.mark.slow
def test_phases_that_have_not_begun_may_be_others(tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patched:
        stop_after(patched, 4)
        train(phased(tmp_path))
    three = (TWO[0], {**TWO[1], "crops.local_count": 1}, {"steps": 2})
    with monkeypatch.context() as patched:
        stop_after(patched, 4)
        assert train(phased(tmp_path, three)).step == 8
    with pytest.raises(SurgdinoError, match=r"another phases\[1\]\.crops\.local_count"):
        open_session(phased(tmp_path), print)
    assert train(phased(tmp_path, three)).step == 13
    assert load(tmp_path).backbone.grid == (6, 6)


@pytest.mark.slow
def test_a_phase_can_follow_a_run_that_ended_without_any(tmp_path):
    train(plan_in(tmp_path, steps=6))
    assert train(phased(tmp_path)).resumed_from == 6
    assert load(tmp_path).info["image_size"] == 48


@pytest.mark.slow
def test_gram_anchors_to_the_teacher_of_the_phases_beginning(tmp_path):
    entries = (TWO[0], {**TWO[1], "train.gram": 1.0, "train.gram_scale": 2})
    result = train(phased(tmp_path, entries, probe=None))
    assert result.last["gram"] > 0
    session = open_session(phased(tmp_path, entries, probe=None), print)
    assert session.anchor.grid == (6, 6)


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ((), ["phases is empty"]),
        (({"crops.global_size": 32},), ["phases[0].steps is not set"]),
        (({"steps": 0},), ["phases[0].steps", "at least 1"]),
        (({"steps": 5, "crop.global_size": 32},), ["unknown setting phases[0].crop", "crops"]),
        (({"steps": 5, "crops.globl_size": 32},), ["phases[0]", "crops.global_size"]),
        (({"steps": 5, "crops.global_size": 36},), ["phases[0], crops.global_size", "patch size 8", "36"]),
        (({"steps": 5}, {"steps": 5, "crops.local_size": 17}), ["phases[1], crops.local_size", "17"]),
        (({"steps": 5, "model.name": "vit_small_patch16"},), ["phases[0]", "cannot change model.name"]),
        (({"steps": 5, "model": {"name": "x"}},), ["phases[0]", "cannot change model"]),
        (({"steps": 5, "method.gamma": 2},), ["phases[0]", "cannot change method.gamma"]),
        (({"steps": 5, "train.seed": 2},), ["phases[0]", "cannot change train.seed"]),
        (({"steps": 5, "train.lrr": 2},), ["phases[0]", "train.lr"]),
        (({"steps": 5, "train.lr": -1},), ["phases[0]", "train.lr", "-1"]),
        (({"steps": 5, "train": 3},), ["phases[0].train", "3"]),
        (({"steps": 5, "augment.transforms.smok.p": 0.5},), ["phases[0]", "augment.transforms.smok", "smoke"]),
        (({"steps": 5, "guide.time.weight": 0.5},), ["phases[0]", "guide.time.weight"]),
        (({"steps": 5}, {"steps": 6}), ["do not add up", "train.steps=12", "11", "train.steps=null"]),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path, entries, words):
    plan = plan_in(tmp_path, probe=None)
    with pytest.raises(SurgdinoError) as fault:
        open_phases(entries, plan.crops, plan.train, plan.augment, plan.guides, 8)
    assert [word for word in words if word not in str(fault.value)] == []


def test_a_phase_changes_the_weight_of_a_guide_and_nothing_else_of_it(tmp_path):
    plan = replace(plan_in(tmp_path, probe=None, steps=None), guides=GUIDES)

    def opened(**entry: Any):
        return open_phases([{"steps": 5, **entry}], CROPS, plan.train, plan.augment, GUIDES, 8)[0].guides

    assert opened(**{"guide.time.weight": 0.5}) == {"time": {**GUIDES["time"], "weight": 0.5}}
    for key, value in {"guide.time.bins": 4, "guide.order.weight": 0.1}.items():
        with pytest.raises(SurgdinoError, match=f"cannot change {key}"):
            opened(**{key: value})
    with pytest.raises(SurgdinoError, match=r"guide\.time\.weight"):
        opened(**{"guide.time.weight": 2})


def test_what_is_constant_stays_so_with_another_value(tmp_path):
    train = replace(plan_in(tmp_path, probe=None, steps=None).train, lr=1e-4, min_lr=1e-4)
    entry = {"steps": 5, "train.lr": 1e-5, "train.weight_decay": 0.1, "train.momentum": 0.9}
    own = open_phases([entry], CROPS, train, {}, {}, 8)[0].train
    assert (own.lr, own.min_lr, own.weight_decay_end, own.momentum_end) == (1e-5, 1e-5, train.weight_decay_end, None)
    assert open_phases([{**entry, "train.min_lr": 0}], CROPS, train, {}, {}, 8)[0].train.min_lr == 0


def test_every_phases_batch_is_checked_before_the_first_begins(tmp_path):
    with pytest.raises(SurgdinoError, match=r"train\.accumulate=3"):
        open_session(phased(tmp_path, ({"steps": 6}, {"steps": 5, "train.accumulate": 3})), print)
    with pytest.raises(SurgdinoError, match="fewer frames"):
        open_session(phased(tmp_path, ({"steps": 6}, {"steps": 5, "train.batch_size": 80})), print)


@pytest.mark.slow
def test_rotary_models_grow_no_grid_and_resume(tmp_path, monkeypatch):
    def rotary(folder: Path) -> TrainPlan:
        kwargs = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 2, "num_heads": 2}
        model = {**TOY, "timm": "vit_small_patch16_dinov3", "timm_kwargs": kwargs}
        plan = plan_in(folder, probe=None, rope_rescale=2.0)
        return in_phases(replace(plan, model=model, backbone=build_backbone(model, drop_path=0.2)))

    whole = train(rotary(tmp_path / "whole"))
    stop_after(monkeypatch, 8)
    train(rotary(tmp_path / "parts"))
    monkeypatch.undo()
    assert train(rotary(tmp_path / "parts")).last == whole.last
    info = load(tmp_path / "parts").info
    assert (info["timm_kwargs"]["img_size"], info["image_size"]) == (32, 48)


def run(folder: Path, layout: dict[str, Any]) -> None:
    train(in_phases(plan_without_chance(folder, probe=None, low_rank=4, drop_path=0.0, **layout)))


@pytest.mark.slow
@pytest.mark.parametrize("layout", [{"accumulate": 2}, {}, {"shard": True}], ids=["micro-batches", "copies", "shards"])
def test_any_layout_makes_the_same_run(tmp_path, layout):
    run(tmp_path / "one", {})
    if layout.get("accumulate"):
        run(tmp_path / "other", layout)
    else:
        in_processes(2, run, tmp_path / "other", layout)
    assert_same_run(tmp_path / "other", tmp_path / "one")
