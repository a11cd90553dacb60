"""augment.on=gpu in the loop: stopped and resumed bit for bit; micro-batches are painted as the whole batch is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from surgdino.config import shipped_settings
from surgdino.engine.plan import TrainPlan
from surgdino.engine.step import micro_batches
from surgdino.engine.train import open_session, train
from tests.engine.test_training import final_tensors, plan_in, stop_after


def painting(folder: Path, on: str = "gpu", **changes) -> TrainPlan:
    plan = plan_in(folder, probe=None, **{"steps": 4, **changes})
    return replace(plan, augment={**shipped_settings("augment", "surgical"), "on": on})


@pytest.mark.slow
@pytest.mark.parametrize("then", ["gpu", "cpu"])
def test_stopped_and_resumed_equals_uninterrupted_and_may_go_on_elsewhere(
    then: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(painting(tmp_path / "whole", accumulate=2))
    with monkeypatch.context() as patched:
        stop_after(patched, 2)
        train(painting(tmp_path / "parts", accumulate=2))
    resumed = train(painting(tmp_path / "parts", then, accumulate=2))
    assert (resumed.status, resumed.resumed_from) == ("finished", 2)
    expected, found = final_tensors(tmp_path / "whole"), final_tensors(tmp_path / "parts")
    same = all(torch.equal(expected[name], found[name]) for name in expected)
    assert same == (then == "gpu"), "painted elsewhere it is the same but for rounding"
    assert whole.last["loss"] == pytest.approx(resumed.last["loss"], rel=0.02)


def test_micro_batches_see_what_the_whole_batch_sees(tmp_path: Path) -> None:
    views = {}
    for count in (1, 2):
        session = open_session(painting(tmp_path / str(count), accumulate=count))
        views[count] = micro_batches(session, next(session.batches()))
    [whole], parts = views[1], views[2]
    for kind in ("global_crops", "local_crops"):
        halves = [getattr(part, kind).unflatten(0, (-1, part.images)) for part in parts]
        assert torch.equal(torch.cat(halves, dim=1).flatten(0, 1), getattr(whole, kind))
