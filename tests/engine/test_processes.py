"""The same loop in two processes: the same run, one writer, one state file for any number of processes."""

from __future__ import annotations

import json
import os
import signal
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from surgdino import distributed
from surgdino.backbone.checkpoint import load
from surgdino.backbone.vit import build_backbone
from surgdino.engine.method import Method
from surgdino.engine.plan import TrainPlan, TrainResult
from surgdino.engine.train import train
from surgdino.errors import SurgdinoError
from tests.engine.gloo import in_processes
from tests.engine.test_training import TOY, final_tensors, plan_in

SHARDED = pytest.mark.parametrize("shard", [False, True], ids=["copies", "sharded"])


def plan_without_chance(folder: Path, *, shard: bool = False, **changes) -> TrainPlan:
    """Without dropped paths, which are drawn by process, so that any number of processes computes the same."""
    plan = plan_in(folder, **changes)
    torch.manual_seed(0)
    backbone = build_backbone(TOY, drop_path=0.0)
    return replace(plan, backbone=backbone, hardware=replace(plan.hardware, shard=shard))


def run(folder: Path, changes: dict, stop: tuple[int, int] | None = None) -> TrainResult:
    """Train; `stop` = (rank, step) sends SIGTERM to that process alone in the middle of that step."""
    count, update = iter(range(1, 10_000)), Method.follow

    def and_signal(*arguments) -> None:
        update(*arguments)
        if (distributed.rank(), next(count)) == stop:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Method, "follow", and_signal)
        return train(plan_without_chance(folder, **changes))


@pytest.fixture(scope="module")
def one_process(tmp_path_factory) -> TrainResult:
    return run(tmp_path_factory.mktemp("one"), {})


def assert_same_run(found: Path, expected: Path) -> None:
    """After 12 steps, warm-up included: the trainer's state and what is shipped."""
    assert_close(final_tensors(found), final_tensors(expected))
    assert_close(load(found).backbone.state_dict(), load(expected).backbone.state_dict())


def assert_close(ours: dict, theirs: dict) -> None:
    """The same run but for rounding, which AdamW turns into more than rounding.

    Another layout sums the same gradients in another order: they differ by 1e-5 of their scale (test_layout.py). AdamW
    divides a gradient by its own size, so a weight whose gradient is smaller than that moves by +lr on one machine and
    by -lr on another. A vector of 64 that began at 0 and has moved by lr in each of 12 steps then differs by
    2 / (12 sqrt(64)) = 2 % for one such weight and step (keys' biases have no other gradient); a network, of which one
    weight in 100,000 is such and which moved by a tenth of its norm, by 0.1 sqrt(4e-5) / 12 = 5e-5.
    """
    assert ours.keys() == theirs.keys()
    squares: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for name, tensor in theirs.items():
        assert type(ours[name]) is torch.Tensor, name
        apart, size = (ours[name] - tensor).double().square().sum().item(), tensor.double().square().sum().item()
        assert apart <= 0.02**2 * max(size, 1e-24), name
        part, kind = name.partition(".")[0], name.rpartition(".")[2]
        squares[kind if part == "optimizer" else part][0] += apart
        squares[kind if part == "optimizer" else part][1] += size
    assert {part: apart for part, (apart, size) in squares.items() if apart > 1e-4**2 * size} == {}


def losses(folder: Path) -> dict[int, dict]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: row for row in rows if "loss" in row}


@pytest.mark.slow
@SHARDED
def test_two_processes_make_the_run_that_one_makes(tmp_path, one_process, shard):
    results = in_processes(2, run, tmp_path, {"shard": shard})
    assert [r.status for r in results] == ["finished", "finished"]
    alone = one_process.metrics.parent
    assert_same_run(tmp_path, alone)
    ours, theirs = losses(tmp_path), losses(alone)
    assert list(ours) == list(theirs) == [1, 4, 8, 12]
    for step, row in theirs.items():
        for term in ("loss", "comp", "expa", "patch", "gradient_norm", "effective_rank", "lr", "momentum"):
            assert ours[step][term] == pytest.approx(row[term], rel=2e-4), (step, term)
    assert results[0].probes.last.as_dict()["cka_cls"] == pytest.approx(
        one_process.probes.last.as_dict()["cka_cls"], abs=1e-4
    )


@pytest.mark.slow
@SHARDED
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_a_run_goes_on_with_another_number_of_processes(tmp_path, one_process, before, after, shard):
    def go(processes: int, stop: tuple[int, int] | None) -> list[TrainResult]:
        arguments = (tmp_path, {"shard": shard}, stop)
        return [run(*arguments)] if processes == 1 else in_processes(processes, run, *arguments)

    stopped = go(before, (before - 1, 7))
    assert [(r.status, r.step) for r in stopped] == [("stopped", 7)] * before
    resumed = go(after, None)
    assert [(r.status, r.resumed_from) for r in resumed] == [("finished", 7)] * after
    assert_same_run(tmp_path, one_process.metrics.parent)
    assert losses(tmp_path)[8]["loss"] == pytest.approx(losses(one_process.metrics.parent)[8]["loss"], rel=1e-4)


@pytest.mark.slow
@pytest.mark.quick("sharded")
@SHARDED
def test_two_processes_stopped_and_resumed_equal_two_uninterrupted_bit_for_bit(tmp_path, shard):
    in_processes(2, run, tmp_path / "whole", {"shard": shard})
    in_processes(2, run, tmp_path / "parts", {"shard": shard}, (1, 6))
    in_processes(2, run, tmp_path / "parts", {"shard": shard})
    expected, found = final_tensors(tmp_path / "whole"), final_tensors(tmp_path / "parts")
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []
    # Also the loss of a window that began before the stop: float64 sums of float32 numbers know no order.
    assert losses(tmp_path / "whole")[8]["loss"] == losses(tmp_path / "parts")[8]["loss"]


def who_writes(folder: Path) -> list[str]:
    os.chdir(folder)
    plan = plan_without_chance(folder / f"rank{distributed.rank()}")
    train(plan)
    return sorted(p.name for p in plan.folder.iterdir()) if plan.folder.exists() else []


def test_only_the_main_process_writes(tmp_path):
    main, other = in_processes(2, who_writes, tmp_path)
    assert main == ["best", "checkpoint", "metrics.jsonl", "state", "tensorboard"]
    assert other == []


def resume_elsewhere(folder: Path) -> None:
    train(plan_without_chance(folder / ("seen" if distributed.is_main() else "unseen")))


def test_processes_that_do_not_find_the_same_state_say_so(tmp_path):
    run(tmp_path / "seen", {"steps": 4})
    with pytest.raises(SurgdinoError, match="file system that all machines see"):
        in_processes(2, resume_elsewhere, tmp_path)


# The processes themselves


def order_of_arrival(folder: Path) -> list[str]:
    with distributed.main_first():
        (folder / f"{len(list(folder.iterdir()))}-{distributed.rank()}").touch()
        return sorted(p.name for p in folder.iterdir())


def test_the_main_process_goes_first(tmp_path):
    assert in_processes(2, order_of_arrival, tmp_path) == [["0-0"], ["0-0", "1-1"]]


def main_fails() -> str:
    try:
        with distributed.main_first():
            raise ValueError("no disk")
    except (ValueError, SurgdinoError) as error:
        return str(error)


def test_where_the_main_process_fails_the_others_do_not_wait():
    assert in_processes(2, main_fails) == ["no disk", "process 1: the first process failed. See its message."]
