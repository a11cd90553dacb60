"""Pairs of nearest neighbours: of the same operation, made anew on time, the same in any layout and after a stop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from surgdino.engine import pairs
from surgdino.engine.plan import TrainPlan
from surgdino.engine.state_files import load_state
from surgdino.engine.train import open_session, train
from tests.engine.gloo import in_processes
from tests.engine.test_processes import plan_without_chance
from tests.engine.test_training import MemoryStore, final_tensors, plan_in, stop_after


class TimedStore(MemoryStore):
    """Whose frames are five seconds apart."""

    def near(self, i: int, seconds: float) -> range:
        first = i // self.each * self.each
        reach = int(seconds // 5)
        return range(max(first, i - reach), min(first + self.each, i + reach + 1))


def paired(plan: TrainPlan, **crops: Any) -> TrainPlan:
    changes = {"pair": "neighbours", "pair_every": 4, "pair_count": 3, **crops}
    return replace(plan, crops=replace(plan.crops, **changes), store=TimedStore())


def test_neighbours_are_the_nearest_others_of_the_operation_and_not_near_in_time(tmp_path):
    session = open_session(paired(plan_in(tmp_path, probe=None), pair_seconds=10.0), print)
    rows = pairs.nearest(session).numpy()
    features = pairs._class_tokens(session).numpy()
    torch.testing.assert_close(np.linalg.norm(features, axis=1), np.ones(72, np.float32))
    for i in range(72):
        others = [j for j in range(72) if j // 24 == i // 24 and abs(j - i) > 2]
        cosines = features[i] @ features.T
        assert cosines[rows[i]].min() >= np.sort(cosines[others])[-3] - 1e-6
        assert set(rows[i].tolist()) <= set(others)
    alone = replace(session.plan, crops=replace(session.plan.crops, pair_seconds=1000.0))
    session.plan = alone
    assert (pairs.nearest(session) == -1).all()


@pytest.mark.slow
@pytest.mark.parametrize(("step", "workers"), [(6, 0), (4, 2)])
def test_stopped_and_resumed_equals_uninterrupted_bit_for_bit(tmp_path, monkeypatch, step, workers):
    """Between two tables, and where one is due."""
    train(paired(plan_in(tmp_path / "whole", probe=None, steps=9)))
    with monkeypatch.context() as patched:
        stop_after(patched, step)
        assert train(paired(plan_in(tmp_path / "parts", workers, probe=None, steps=9))).step == step
    assert train(paired(plan_in(tmp_path / "parts", workers, probe=None, steps=9))).resumed_from == step
    expected, found = final_tensors(tmp_path / "whole"), final_tensors(tmp_path / "parts")
    assert [key for key in expected if not torch.equal(expected[key], found[key])] == []
    known = load_state(tmp_path / "parts" / "state", print)["neighbours"]
    assert known["step"] == 8
    assert known["rows"].shape == (72, 3)
    for i, row in enumerate(known["rows"].tolist()):
        assert all(j // 24 == i // 24 and j != i for j in row)


def table(folder: Path, layout: dict[str, Any]) -> np.ndarray:
    return pairs.nearest(open_session(paired(plan_without_chance(folder, probe=None, **layout)), print)).numpy()


@pytest.mark.slow
def test_any_number_of_processes_finds_the_same(tmp_path):
    alone = table(tmp_path, {})
    for layout in ({}, {"shard": True}):
        for found in in_processes(2, table, tmp_path, layout):
            assert np.array_equal(found, alone)
