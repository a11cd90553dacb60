"""How a batch is laid out over processes and micro-batches changes neither the loss nor the gradients."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from surgdino.backbone.vit import build_backbone
from surgdino.config import shipped
from surgdino.engine.methods import simdinov2
from surgdino.engine.methods.simdinov2 import Settings, SimDINOv2
from surgdino.engine.plan import TrainPlan
from surgdino.engine.processes import Pool, reaches_beyond, whole
from surgdino.engine.session import Session
from surgdino.engine.step import compute_gradients, compute_targets, micro_batches, pools
from surgdino.engine.train import open_session
from surgdino.errors import SurgdinoError
from tests.engine.gloo import in_processes
from tests.engine.test_training import TOY, plan_in

BATCH = 64


def plan_of(folder: Path, method: dict, *, shard: bool = False, drop_path: float = 0.0, **train) -> TrainPlan:
    plan = plan_in(folder, **{"batch_size": BATCH, "head_warmup_steps": 0, "clip": None, **train}, probe=None)
    torch.manual_seed(0)
    backbone = build_backbone(TOY, drop_path=drop_path)
    hardware = replace(plan.hardware, shard=shard)
    return replace(plan, backbone=backbone, method={**plan.method, **method}, hardware=hardware)


def first_step(folder: Path, method: dict, layout: dict) -> tuple[dict, dict]:
    """Terms and gradients of a run's first step, over the whole batch."""
    session = open_session(plan_of(folder, method, **layout), print)
    terms = gradients_of(session)
    gradients = whole({name: p.grad for name, p in session.student.named_parameters()})
    return terms, {name: gradient.numpy() for name, gradient in gradients.items()}


def gradients_of(session: Session) -> dict[str, float]:
    views = micro_batches(session, next(session.batches()))
    targets = compute_targets(session, views)
    terms = compute_gradients(session, views, targets, pools(session, views, targets))
    return {name: float(session.processes.mean(value)) for name, value in terms.items()}


@pytest.fixture(scope="module", params=[None, 32, 16], ids=["one group", "groups of 32", "groups of 16"])
def method(request) -> dict:
    return {"group_size": request.param}


@pytest.fixture(scope="module")
def one_process(method, tmp_path_factory) -> tuple[dict, dict]:
    return first_step(tmp_path_factory.mktemp("one"), method, {})


def assert_same(found: tuple[dict, dict], expected: tuple[dict, dict]) -> None:
    """To fp32 rounding: a hundred-thousandth of the largest entry of each gradient."""
    for name, value in expected[0].items():
        assert found[0][name] == pytest.approx(value, rel=2e-6), name
    assert found[1].keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        scale = abs(gradient).max()
        assert scale > 0, name
        assert abs(found[1][name] - gradient).max() < 1e-5 * scale, name


@pytest.mark.quick("groups of 16-2 sharded")
@pytest.mark.parametrize(
    ("processes", "layout"),
    [
        (2, {}),
        (1, {"accumulate": 2}),
        (1, {"accumulate": 4}),
        (2, {"accumulate": 2}),
        (2, {"shard": True}),
        (2, {"shard": True, "accumulate": 2}),
    ],
    ids=["2 x 32", "2 steps x 32", "4 steps x 16", "2 x 2 steps x 16", "2 sharded", "2 sharded x 2 steps"],
)
def test_every_layout_gives_the_loss_and_gradients_of_one_process(tmp_path, method, one_process, processes, layout):
    if processes == 1:
        results = [first_step(tmp_path, method, layout)]
    else:
        results = in_processes(processes, first_step, tmp_path, method, layout)
    for found in results:
        assert_same(found, one_process)


def test_the_processes_number_in_the_formula_would_break_this():
    """The reference's way, computed here: each process its own covariance, N processes in the scale and in gamma."""
    generator = torch.Generator().manual_seed(0)
    features = torch.nn.functional.normalize(torch.randn(2, BATCH, 32, generator=generator) + 1, dim=-1)

    def expansion(processes: int) -> tuple[float, torch.Tensor]:
        student = features.clone().requires_grad_()
        settings = shipped(
            Settings, "method/simdinov2", expa_type=0, group_size=BATCH // processes, pooled_groups=processes
        )
        value = simdinov2.expansion(student, features, settings, Pool())
        value.backward()
        return value.item(), student.grad.flatten()

    alone, gradient_alone = expansion(1)
    apart, gradient_apart = expansion(2)
    assert abs(apart / alone - 1) > 0.1
    assert torch.nn.functional.cosine_similarity(gradient_alone, gradient_apart, dim=0) < 0.99
    assert (gradient_apart.norm() / gradient_alone.norm() - 1).abs() > 0.1


# What is known beyond the micro-batch


def test_groups_reach_beyond_a_micro_batch_only_where_they_do():
    assert reaches_beyond(None, 32, 64)
    assert reaches_beyond(64, 32, 64)
    assert reaches_beyond(24, 32, 96)
    assert not reaches_beyond(None, 64, 64)
    assert not reaches_beyond(32, 32, 64)
    assert not reaches_beyond(16, 32, 64)


def test_without_groups_beyond_nothing_is_gathered_and_no_pass_is_repeated(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(SimDINOv2, "group_features", lambda *arguments: calls.append(1))
    first_step(tmp_path, {"group_size": 16}, {"accumulate": 4})
    assert not calls


def test_the_look_ahead_drops_the_same_paths(tmp_path):
    """What a micro-batch reads of itself in the pool is what it then computes."""
    session = open_session(plan_of(tmp_path, {}, accumulate=4, drop_path=0.5), print)
    views = micro_batches(session, next(session.batches()))
    targets = compute_targets(session, views)
    places, met = pools(session, views, targets), []

    def complete(self: Pool, name: str, own: torch.Tensor) -> torch.Tensor:
        images = own.shape[1]
        met.append((self.seen[name][:, self.place * images :][:, :images], own.detach()))
        return self.seen[name]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Pool, "complete", complete)
        compute_gradients(session, views, targets, places)
    assert len(met) == 4
    for foreseen, own in met:
        torch.testing.assert_close(foreseen, own, rtol=1e-6, atol=1e-6)
    assert not torch.allclose(met[0][0], met[1][0])


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
def test_with_dropped_paths_sharded_networks_still_give_the_gradients_of_copies(tmp_path, accumulate):
    """Paths are dropped by process and micro-batch, so only the same layout drops the same ones."""
    layout = {"accumulate": accumulate, "drop_path": 0.5}
    copies = in_processes(2, first_step, tmp_path, {}, layout)
    sharded = in_processes(2, first_step, tmp_path, {}, {**layout, "shard": True})
    for found, expected in zip(sharded, copies, strict=True):
        assert_same(found, expected)


def test_a_batch_that_cannot_be_shared_out_is_refused(tmp_path):
    with pytest.raises(SurgdinoError, match=r"train\.batch_size.*1 processes x train\.accumulate=3.*batch_size=63"):
        open_session(plan_of(tmp_path, {}, accumulate=3), print)
