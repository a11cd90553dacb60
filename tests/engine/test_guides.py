"""Every guide there is: its settings, what it teaches, a resumed run, any layout of the batch; bad input in one line.

A new file in configs/guide/ is covered unasked.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from surgdino.config import shipped_settings
from surgdino.discovery import files
from surgdino.engine.guide import Guides, Known, open_guide, open_guides
from surgdino.engine.plan import TrainPlan
from surgdino.engine.processes import Pool, ProcessGroup
from surgdino.engine.state_files import load_state
from surgdino.engine.train import open_session, train
from surgdino.errors import SurgdinoError
from tests.engine.gloo import in_processes
from tests.engine.methods.test_training import IMAGES, calm, mean_of, one_step, plan_of, together  # noqa: F401
from tests.engine.test_processes import assert_same_run, plan_without_chance
from tests.engine.test_training import final_tensors, stop_after

every_guide = pytest.mark.parametrize("name", files("configs/guide"))


def section(*names: str, **changes: Any) -> dict[str, dict[str, Any]]:
    """The `guide` section that chooses these; all of them where none is named."""
    chosen = names or tuple(files("configs/guide"))
    sections = {name: shipped_settings("guide", name) for name in chosen}
    return {name: {**each, **changes, **_column(each)} for name, each in sections.items()}


def _column(each: dict[str, Any]) -> dict[str, str]:
    return {"column": "hospital"} if each.get("column") == "???" else {}


def facts_of(videos: int = 3, each: int = 24) -> dict[str, np.ndarray]:
    """Of the frames of a `MemoryStore`; the last operation is an excerpt, nobody knows the tower of the first one."""
    operation = np.arange(videos * each) // each
    seconds = (np.arange(videos * each) % each * 5).astype(np.float32)
    tower = np.where(operation == 0, -1, operation - 1)
    time = np.where(operation == videos - 1, np.nan, seconds / seconds.max()).astype(np.float32)
    known = {"operation": operation, "video": operation, "seconds": seconds, "time": time}
    return {**known, "column:tower": tower, "column:hospital": operation % 2}


def guided(plan: TrainPlan, guides: dict[str, dict[str, Any]]) -> TrainPlan:
    return replace(plan, guides=guides, facts=facts_of())


def ready(guides: Guides) -> None:
    """As after a first step: the sizes of gradients are known."""
    guides.sizes.fill_(1.0)


@every_guide
def test_the_configuration_that_ships_has_every_key_and_no_other(name):
    kind, settings = open_guide(name, section(name)[name])
    assert settings.name == kind.__module__.rpartition(".")[2]
    assert vars(settings).keys() == shipped_settings("guide", name).keys()
    assert open_guides(section(name), 16, facts_of()).each[0].key == name


@pytest.mark.slow
@pytest.mark.parametrize("method", ["simdinov2", "dino"])
def test_stopped_and_resumed_equals_uninterrupted_bit_for_bit(tmp_path, monkeypatch, method):
    """With all guides at once; their heads are in the state and in no checkpoint."""
    plan = guided(plan_of(method, tmp_path / "whole", steps=10, probe=None), section())
    whole = train(plan)
    with monkeypatch.context() as patched:
        stop_after(patched, 6)
        parts = guided(plan_of(method, tmp_path / "parts", steps=10, probe=None), section())
        assert train(parts).status == "stopped"
    resumed = train(guided(plan_of(method, tmp_path / "parts", steps=10, probe=None), section()))
    assert resumed.resumed_from == 6
    expected, found = final_tensors(tmp_path / "whole"), final_tensors(tmp_path / "parts")
    assert expected.keys() == found.keys()
    assert [key for key in expected if not torch.equal(expected[key], found[key])] == []
    assert resumed.last == whole.last
    assert any(key.startswith("student.guides.") for key in expected)
    assert not any(key.startswith("teacher.guides.") for key in expected)
    for key in ("guide_time", "guide_time_error", "guide_order_accuracy", "guide_operation_accuracy"):
        assert key in whole.last


@pytest.mark.slow
def test_other_guides_or_facts_are_another_run(tmp_path):
    def begin(guides: dict[str, Any], facts: dict[str, np.ndarray]) -> None:
        train(replace(plan_of("simdinov2", tmp_path, steps=1, probe=None), guides=guides, facts=facts))

    begin(section("time"), facts_of())
    begin(section("time"), facts_of())
    with pytest.raises(SurgdinoError, match=r"guide\.time\.weight"):
        begin(section("time", weight=0.5), facts_of())
    with pytest.raises(SurgdinoError, match=r"guide\.facts\.time"):
        begin(section("time"), {**facts_of(), "time": facts_of()["seconds"]})
    with pytest.raises(SurgdinoError, match="guide"):
        begin({}, {})


@pytest.mark.parametrize("method", ["simdinov2", "dino", pytest.param("dinov2", marks=pytest.mark.slow)])
@pytest.mark.usefixtures("calm")
def test_the_layout_of_the_batch_changes_neither_loss_nor_gradients(method, tmp_path):
    """All guides at once, also beside a method that couples no images, and those that know nothing of some frames."""
    plan = plan_of(method, tmp_path, {"freeze_last_layer": 0.0}, batch_size=IMAGES, head_warmup_steps=0)
    session = open_session(guided(plan, section()), print)
    for network in (session.student, session.teacher):
        network.eval()
    ready(session.student.guides)
    batch = next(session.batches())
    session.step = session.steps // 2
    expected = one_step(session, batch, ProcessGroup(0, 1), 1)
    assert {f"guide_{name}" for name in section() if name != "centre"} <= expected[0].keys()
    assert expected[1].keys() >= {key for key, _ in session.student.named_parameters()}
    for world, count in ((1, 2), (2, 1), (2, 2)):
        results = together(world, lambda processes, count=count: one_step(session, batch, processes, count))
        terms, gradients = mean_of([r[0] for r in results]), mean_of([r[1] for r in results])
        assert terms == {key: pytest.approx(value.item(), rel=1e-5) for key, value in expected[0].items()}
        for key, gradient in expected[1].items():
            assert (gradients[key] - gradient).abs().max() <= 2e-5 * gradient.abs().max(), key


def run(folder: Path, layout: dict[str, Any]) -> None:
    train(guided(plan_without_chance(folder, probe=None, **layout), section()))


@pytest.mark.slow
def test_micro_batches_and_two_processes_make_the_run_of_one(tmp_path):
    run(tmp_path / "one", {})
    run(tmp_path / "micro", {"accumulate": 2})
    assert_same_run(tmp_path / "micro", tmp_path / "one")
    for name, layout in (("copies", {}), ("sharded", {"shard": True}), ("both", {"shard": True, "accumulate": 2})):
        in_processes(2, run, tmp_path / name, layout)
        assert_same_run(tmp_path / name, tmp_path / "one")


# What a guide does


def grown(guides: Guides, objective: float = 2.0) -> tuple[torch.Tensor, Any]:
    """The gradient at class tokens [2b, 16] where the objective's is `objective` everywhere, and the views."""
    from surgdino.engine.methods.parts.views import Views

    generator = torch.Generator().manual_seed(0)
    cls = torch.randn(48, 16, generator=generator, requires_grad=True)
    frames = np.arange(0, 72, 3)
    facts = {name: torch.from_numpy(np.stack([values[frames]] * 2)) for name, values in facts_of().items()}
    empty = torch.empty(0)
    views = Views(torch.empty(48, 1), empty, empty, empty, empty, images=24, facts=facts)
    guides.begin()
    loss, _ = guides(cls, views, Pool())
    (loss + objective * guides.watched(cls, views).sum()).backward()
    return cls.grad, views


@every_guide
def test_its_gradient_is_a_share_of_the_objectives_and_an_adversarys_points_back(name):
    guides = open_guides(section(name, weight=0.25), 16, facts_of())
    if guides.each[0].head is None:
        pytest.skip("no loss of its own")
    before, _ = grown(guides)
    assert torch.equal(before, torch.full_like(before, 2.0)), "nothing is known of its size yet"
    guides.settle(ProcessGroup(0, 1))
    after, views = grown(guides)
    guide = after - 2.0
    assert guide.norm() == pytest.approx(0.25 * before.norm().item(), rel=1e-4)
    cls = torch.randn(48, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()
    known = Known(views.facts, slice(0, 24), Pool())
    loss, _ = guides.each[0].loss(cls.view(2, 24, 16), known)
    loss.backward()
    cosine = torch.nn.functional.cosine_similarity(guide.flatten(), cls.grad.flatten(), dim=0)
    assert cosine == pytest.approx(-1.0 if guides.each[0].reverses else 1.0, abs=1e-5)


@every_guide
def test_a_head_learns_what_the_class_token_tells(name):
    """Tokens that hold the answer; frames that nothing is known of have no gradient."""
    torch.manual_seed(0)
    guides = open_guides(section(name), 16, facts_of())
    guide = guides.each[0]
    if guide.head is None:
        pytest.skip("no loss of its own")
    facts = {key: torch.from_numpy(np.stack([values] * 2)) for key, values in facts_of().items()}
    cls = 0.1 * torch.randn(2, 72, 16)
    cls[..., 0] += facts["seconds"] / 60 - 1
    cls.scatter_add_(2, 1 + facts["operation"][..., None], torch.ones(2, 72, 1))
    cls.requires_grad_()
    known, optimizer = Known(facts, slice(0, 72), Pool()), torch.optim.Adam(guide.parameters(), lr=0.03)
    found = []
    for _ in range(150):
        loss, figures = guide.loss(cls, known)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    assert found[-1] < 0.6 * found[0]
    (error,) = [key for key in figures if key]
    assert figures[error] < 10 if error == "error" else figures[error] > 90
    unknown = {"time": slice(48, 72), "tower": slice(0, 24)}.get(name)
    if unknown:
        assert not cls.grad[:, unknown].any()
        assert cls.grad.any()


def test_order_is_the_plackett_luce_likelihood_by_hand():
    guides = open_guides(section("order"), 1, facts_of())
    with torch.no_grad():
        guides.each[0].head.weight.fill_(1.0)
    scores = torch.tensor([0.3, -1.0, 2.0, 0.5])
    facts = {"video": torch.tensor([[0, 0, 1, 0]] * 2), "seconds": torch.tensor([[2.0, 1.0, 0.0, 5.0]] * 2)}
    loss, figures = guides.each[0].loss(scores.expand(2, 4)[..., None], Known(facts, slice(0, 4), Pool()))
    first = torch.tensor([-1.0, 0.3, 0.5]).logsumexp(0) + 1.0
    second = torch.tensor([0.3, 0.5]).logsumexp(0) - 0.3
    assert loss.item() == pytest.approx((first + second).item() / 2)
    assert figures["accuracy"].item() == 0  # of three pairs none: later frames score higher


def test_centre_takes_each_operations_level_off_within_its_group():
    features = torch.randn(2, 8, 4)
    operation = torch.tensor([[0, 0, 1, 1, 0, 1, 2, 2]] * 2)
    groups = Pool(operation=operation, centred=1.0).groups("x", features, 4)
    assert groups.shape == (2, 2, 4, 4)
    torch.testing.assert_close(groups[:, 0, :2], features[:, :2] - features[:, :2].mean(1, keepdim=True))
    torch.testing.assert_close(groups[:, 1, :2], torch.zeros(2, 2, 4))
    torch.testing.assert_close(Pool(operation=operation).groups("x", features, None), features[:, None])


@pytest.mark.parametrize(
    ("name", "changed", "said"),
    [
        ("time", {"time": np.full(72, np.nan, np.float32)}, "guide=time has nothing.*whole operations"),
        ("order", {"video": np.arange(72)}, "guide=order has nothing.*several frames"),
        ("operation", {"operation": np.zeros(72, np.int64)}, "guide=operation has nothing.*two values"),
        ("tower", {"column:tower": np.full(72, -1)}, "guide=tower has nothing.*data.table"),
    ],
)
def test_a_guide_without_its_information_is_one_line(name, changed, said):
    with pytest.raises(SurgdinoError, match=said):
        open_guides(section(name), 16, {**facts_of(), **changed})


def test_a_setting_or_a_guide_that_does_not_exist_is_one_line():
    with pytest.raises(SurgdinoError, match=r"guide\.time\.weight.*at most 1"):
        open_guide("time", {**section("time")["time"], "weight": 2.0})
    with pytest.raises(SurgdinoError, match="there is no guide=tiem"):
        open_guide("tiem", {"name": "tiem"})


def test_without_guides_a_state_has_nothing_of_them(tmp_path):
    train(plan_of("simdinov2", tmp_path, steps=1, probe=None))
    state = load_state(tmp_path / "state", print)
    assert "guide" not in state["settings"]
    assert not any("guides" in key for key in state["student"])
