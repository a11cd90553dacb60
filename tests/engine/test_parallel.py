"""Two and four processes: copies whose unused parameters are found, another number of processes, compiled blocks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from surgdino.backbone import packed
from surgdino.engine import hardware
from surgdino.engine.parallel import Copies
from surgdino.engine.step import train_step
from surgdino.engine.train import open_session, train
from tests.engine.gloo import in_processes
from tests.engine.test_processes import SHARDED, assert_same_run, plan_without_chance, run


def searched(folder: Path, spare: bool) -> list[bool | None]:
    """Whether DDP searches for unused parameters, after each of 5 steps; the backbone is released before the fourth.

    Args:
        spare: the student has a parameter that nothing uses.
    """
    session = open_session(plan_without_chance(folder, steps=12), print)
    for network in session.networks.values() if spare else ():
        network.head.register_parameter("spare", nn.Parameter(torch.ones(3)))
    assert isinstance(session.wrapped, Copies)
    found = []
    with session.monitor:
        for batch, _ in zip(session.batches(), range(5), strict=False):
            train_step(session, batch)
            found.append(session.wrapped.wrapped.find_unused_parameters)
    return found


@pytest.mark.quick("used")
@pytest.mark.parametrize("spare", [False, True], ids=["all used", "one left out"])
def test_copies_search_for_unused_parameters_only_where_there_are_some(tmp_path, spare):
    assert in_processes(2, searched, tmp_path, spare) == [[spare] * 5] * 2


@pytest.mark.slow
@SHARDED
@pytest.mark.parametrize(("before", "after"), [(4, 2), (2, 4)])
def test_four_processes_and_two_make_one_run(tmp_path, before, after, shard):
    whole = run(tmp_path / "one", {})
    stopped = in_processes(before, run, tmp_path / "many", {"shard": shard}, (before - 1, 7))
    assert [(r.status, r.step) for r in stopped] == [("stopped", 7)] * before
    resumed = in_processes(after, run, tmp_path / "many", {"shard": shard})
    assert [(r.status, r.resumed_from) for r in resumed] == [("finished", 7)] * after
    assert_same_run(tmp_path / "many", whole.metrics.parent)


def run_compiled(folder: Path, shard: bool) -> None:
    with pytest.MonkeyPatch.context() as patched:
        parts = packed.compiled_parts(backend="aot_eager", fullgraph=True)
        patched.setattr(packed, "compiled_parts", lambda: parts)
        patched.setattr(hardware, "compilation_fails", lambda device: None)
        plan = plan_without_chance(folder, shard=shard)
        train(replace(plan, hardware=replace(plan.hardware, compile=True)))


@pytest.mark.slow
@SHARDED
def test_compiled_blocks_in_two_processes_make_the_run_of_one(tmp_path, shard):
    whole = run(tmp_path / "one", {})
    in_processes(2, run_compiled, tmp_path / "two", shard)
    assert_same_run(tmp_path / "two", whole.metrics.parent)
