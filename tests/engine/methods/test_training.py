"""Every method there is: its configuration, its word to the loop, a run, a resumed run, and any layout of the batch.

A new file in surgdino/engine/methods/ is covered unasked.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from surgdino import discovery
from surgdino.backbone.vit import build_backbone
from surgdino.config import shipped_settings
from surgdino.crops.loader import Batch
from surgdino.engine.method import Method, open_method
from surgdino.engine.methods.parts.views import to_views
from surgdino.engine.plan import TrainPlan
from surgdino.engine.processes import ProcessGroup
from surgdino.engine.session import Session
from surgdino.engine.step import compute_gradients, compute_targets, pools
from surgdino.engine.train import open_session, train
from tests.engine.teachers import toy_teacher
from tests.engine.test_training import TOY, final_tensors, plan_in, stop_after

SMALL = {"head_hidden": 32, "head_out": 16, "prototypes": 64, "freeze_last_layer": 0.2}
every_method = pytest.mark.parametrize("name", discovery.names("surgdino.engine.methods"))


def section(name: str, **changes: Any) -> dict[str, Any]:
    """What the method ships, with a small head."""
    shipped = shipped_settings("method", name)
    small = {**SMALL, "teachers": [toy_teacher()], **changes}
    return {key: small.get(key, value) for key, value in shipped.items()}


def plan_of(name: str, folder: Path, changes: dict[str, Any] | None = None, **train: Any) -> TrainPlan:
    return replace(plan_in(folder, **train), method=section(name, **(changes or {})))


# The configuration and the word to the loop


@every_method
def test_the_configuration_that_ships_has_every_key_and_no_other(name):
    kind, settings = open_method(shipped_settings("method", name))
    assert shipped_settings("method", name).keys() == {f.name for f in dataclasses.fields(settings) if f.init}
    assert issubclass(kind, Method)


@every_method
def test_collapse_is_known_for_any_batch_and_warned_of(name):
    kind, settings = open_method(section(name, prototypes=65536, head_out=256))
    method = kind(settings, build_backbone(TOY))
    for images in (8, 512):
        method.check_batch(images)
        values = method.collapse(images)
        assert "loss" in values
        assert np.isfinite(list(values.values())).all()
        assert "collapse" in method.collapse_warning(values, images)


# Runs


@pytest.mark.quick("simdinov2")
@every_method
def test_a_run_learns_and_stays_away_from_collapse(name, tmp_path):
    result = train(plan_of(name, tmp_path, steps=40, batch_size=16, lr=2e-3, checkpoint_every=50))
    assert (result.status, result.skipped) == ("finished", 0)
    assert result.collapse.keys() == result.last.keys() - {"gradient_norm"}
    assert np.isfinite(list(result.last.values())).all()
    assert result.last["loss"] < result.first["loss"] - 0.1
    assert result.last["loss"] < result.collapse["loss"] - 0.1
    assert not [said for said in result.warnings if "collapse" in said]


@pytest.mark.quick("simdinov2")
@every_method
def test_stopped_and_resumed_equals_uninterrupted_bit_for_bit(name, tmp_path, monkeypatch):
    """Stopped while the prototypes are frozen, and once more after."""
    uninterrupted = train(plan_of(name, tmp_path / "whole", steps=10))
    for step in (2, 5):
        with monkeypatch.context() as patched:
            stop_after(patched, step if step == 2 else step - 2)
            assert train(plan_of(name, tmp_path / "parts", steps=10)).step == step
    resumed = train(plan_of(name, tmp_path / "parts", steps=10))
    assert (resumed.status, resumed.resumed_from) == ("finished", 5)
    expected, found = final_tensors(tmp_path / "whole"), final_tensors(tmp_path / "parts")
    assert expected.keys() == found.keys()
    assert [key for key in expected if not torch.equal(expected[key], found[key])] == []
    assert (resumed.first, resumed.last) == (uninterrupted.first, uninterrupted.last)


# Layouts

IMAGES = 64


@dataclass
class Meeting:
    """Where simulated processes put what they exchange."""

    seats: list[torch.Tensor | None]
    gate: threading.Barrier

    def exchange(self, seat: int, tensor: torch.Tensor) -> list[torch.Tensor]:
        self.seats[seat] = tensor.detach()
        self.gate.wait(timeout=30)
        shown = list(self.seats)
        self.gate.wait(timeout=30)
        return shown


@dataclass(frozen=True)
class Simulated(ProcessGroup):
    """One of several processes, here threads."""

    meeting: Meeting = field(default_factory=lambda: Meeting([], threading.Barrier(1)))

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        return torch.stack(self.meeting.exchange(self.rank, tensor)).sum(0)

    def gather_views(self, tensor: torch.Tensor) -> torch.Tensor:
        return torch.cat(self.meeting.exchange(self.rank, tensor), dim=1)


def together(count: int, work: Callable[[ProcessGroup], Any]) -> list[Any]:
    """`work` in `count` simulated processes."""
    if count == 1:
        return [work(ProcessGroup(0, 1))]
    meeting = Meeting([None] * count, threading.Barrier(count))
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda rank: work(Simulated(rank, count, meeting)), range(count)))


def one_step(session: Session, batch: Batch, processes: ProcessGroup, count: int) -> tuple[dict, dict, dict]:
    """Terms, gradients and the teacher's buffers after a step's passes, of a process with `count` micro-batches."""
    student, teacher = deepcopy(session.student), deepcopy(session.teacher)
    mine = replace(session, student=student, wrapped=student, teacher=teacher, processes=processes)
    size = IMAGES // (processes.world * count)
    first = processes.rank * count * size
    parts = [slice(first + k * size, first + (k + 1) * size) for k in range(count)]
    views = [to_views(batch, mine.device, mine.plan.model["mean"], mine.plan.model["std"], part) for part in parts]
    targets = compute_targets(mine, views)
    terms = compute_gradients(mine, views, targets, pools(mine, views, targets))
    gradients = {key: p.grad for key, p in student.named_parameters() if p.grad is not None}
    return terms, gradients, dict(teacher.named_buffers())


def mean_of(results: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {key: torch.stack([each[key] for each in results]).mean(0) for key in results[0]}


@pytest.fixture
def calm(monkeypatch: pytest.MonkeyPatch) -> None:
    """No dropped paths: they are drawn anew for every process and micro-batch, as they should be."""
    monkeypatch.setattr("surgdino.engine.step._seed", lambda *arguments: None)


@pytest.mark.quick("simdinov2-one group", "dinov2-groups of 16")
@pytest.mark.usefixtures("calm")
@pytest.mark.parametrize("group", [None, 16], ids=["one group", "groups of 16"])
@every_method
def test_the_layout_of_the_batch_changes_neither_loss_nor_gradients(name, group, tmp_path):
    if group and "group_size" not in shipped_settings("method", name):
        pytest.skip("this method couples no images in groups")
    settings = {"group_size": group, "freeze_last_layer": 0.0}
    session = open_session(plan_of(name, tmp_path, settings, batch_size=IMAGES, head_warmup_steps=0), print)
    for network in (session.student, session.teacher):
        network.eval()
    batch = next(session.batches())
    session.step = session.steps // 2  # a centre has been before, the backbone learns
    expected = one_step(session, batch, ProcessGroup(0, 1), 1)
    assert expected[1].keys() >= {key for key, _ in session.student.named_parameters()}
    for world, count in ((1, 2), (2, 1), (2, 2)):
        results = together(world, lambda processes, count=count: one_step(session, batch, processes, count))
        terms, gradients = mean_of([r[0] for r in results]), mean_of([r[1] for r in results])
        assert terms == {key: pytest.approx(value.item(), rel=1e-5) for key, value in expected[0].items()}
        assert gradients.keys() == expected[1].keys()
        for key, gradient in expected[1].items():
            assert (gradients[key] - gradient).abs().max() <= 2e-5 * gradient.abs().max(), key
        for result in results:
            for key, buffer in expected[2].items():
                torch.testing.assert_close(result[2][key], buffer, msg=key)
