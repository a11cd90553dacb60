"""What a run keeps and says: the monitor's windows and words, the trainer's state, the end on request."""

from __future__ import annotations

import errno
import math
import os
import signal
from pathlib import Path

import pytest
import torch

from surgdino.engine import saving, state_files
from surgdino.engine.monitor import Monitor
from surgdino.engine.optim import Rates, Update
from surgdino.engine.stop import stop_signals
from surgdino.errors import SurgdinoError

# Monitor


def monitor_in(folder: Path, said: list[str], **changes) -> Monitor:
    arguments = {"every": 2, "last_step": 6, "images": 4, "collapse": lambda means: None, "warn": said.append}
    return Monitor(folder, **{**arguments, **changes})


RATES = Rates(0.1, 0.2, 0.04, 0.95, True)


def record(monitor: Monitor, step: int, loss: float, skipped: float = 0.0) -> None:
    with monitor.waiting():
        pass
    update = Update(torch.tensor(loss), torch.tensor(skipped))
    monitor.record(step, {"loss": torch.tensor(loss)}, update, RATES, torch.eye(3))


def test_a_window_is_the_mean_of_its_steps_without_the_skipped(tmp_path):
    said: list[str] = []
    with monitor_in(tmp_path, said, every=4) as monitor:
        record(monitor, 1, 9.0)
        for step, loss, skipped in ((2, 1.0, 0), (3, math.nan, 1), (4, 2.0, 0)):
            record(monitor, step, loss, skipped)
    assert monitor.first["loss"] == 9.0
    assert monitor.last["loss"] == pytest.approx(1.5)
    assert monitor.skipped == 1
    assert len([s for s in said if "not finite" in s]) == 1


def test_ten_bad_steps_in_a_row_stop_the_run_nine_do_not(tmp_path):
    monitor = monitor_in(tmp_path, [], every=100, last_step=100)
    for step in range(1, 10):
        record(monitor, step, math.nan, 1.0)
    record(monitor, 10, 1.0)
    for step in range(11, 100):
        record(monitor, step, math.nan, float(step > 90))
    with pytest.raises(SurgdinoError, match="10 steps in a row"):
        record(monitor, 100, math.nan, 1.0)


def test_a_loop_that_waits_for_data_is_told_once(tmp_path, monkeypatch):
    clock = iter(range(10_000))
    monkeypatch.setattr("surgdino.engine.monitor.time.perf_counter", lambda: float(next(clock)))
    said: list[str] = []
    monitor = monitor_in(tmp_path, said)
    for step in range(1, 7):
        record(monitor, step, 1.0)
    assert len([s for s in said if "waits for data" in s and "loader_workers" in s]) == 1


# State


def small_state() -> dict:
    return {"student": {"weight": torch.arange(1000.0)}}


def test_two_states_are_kept_and_the_newest_is_loaded(tmp_path):
    for step in (1, 2, 3):
        state_files.save_state(tmp_path, step, small_state())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["00000002.pt", "00000003.pt"]
    assert state_files.load_state(tmp_path, print)["step"] == 3


def test_without_any_state_there_is_nothing_to_resume(tmp_path):
    assert state_files.load_state(tmp_path / "nowhere", print) is None


@pytest.mark.parametrize("damage", ["flipped", "truncated", "empty"])
def test_any_damage_is_noticed(tmp_path, damage):
    state_files.save_state(tmp_path, 1, small_state())
    newest = state_files.save_state(tmp_path, 2, small_state())
    content = bytearray(newest.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 1
    newest.write_bytes({"flipped": content, "truncated": content[:-200], "empty": b""}[damage])
    said: list[str] = []
    assert state_files.load_state(tmp_path, said.append)["step"] == 1
    assert str(newest) in said[0]


def test_a_state_never_runs_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    torch.save({"format": 1, "step": 1, "evil": Evil()}, tmp_path / "00000001.pt")
    with pytest.raises(SurgdinoError, match="damaged"):
        state_files.load_state(tmp_path, print)
    assert not (tmp_path / "ran").exists()


def test_a_full_disk_keeps_the_state_before(tmp_path, monkeypatch):
    state_files.save_state(tmp_path, 1, small_state())

    def full(content, path) -> None:
        Path(path).write_bytes(b"half of it")
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(SurgdinoError, match="disk is full"):
        state_files.save_state(tmp_path, 2, small_state())
    assert [p.name for p in tmp_path.iterdir()] == ["00000001.pt"]
    assert state_files._reason(tmp_path / "x", RuntimeError("write")).errno == errno.ENOSPC


# Stop


def test_a_dying_worker_is_an_error_unless_a_stop_was_requested():
    def batches():
        yield 1
        raise SurgdinoError("a worker process was killed")

    with stop_signals() as stop:
        assert list(stop.until(batches())) == [1]
        with pytest.raises(SurgdinoError, match="worker"):  # after saving
            stop.check()
    with stop_signals() as stop:
        source = stop.until(batches())
        assert next(source) == 1
        stop.requested = True
        assert list(source) == []
        stop.check()


def test_a_signal_that_somebody_listens_to_is_passed_on_when_all_is_saved():
    """submitit's, shortly before a Slurm job's time is up: its listener queues the job again and exits."""
    happened = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: happened.append("queued again"))
    try:
        with stop_signals() as stop:
            signal.raise_signal(signal.SIGUSR2)
            assert stop.requested
            happened.append("saved")
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert happened == ["saved", "queued again"]


def test_where_one_process_is_asked_to_stop_none_begins_the_next_step():
    asked_elsewhere = iter([False, False, True])
    with stop_signals() as stop:
        assert list(stop.until(range(10), lambda here: here or next(asked_elsewhere))) == [0, 1]


@pytest.mark.parametrize(
    "content",
    [
        [1, 2],
        {"format": 1, "step": 2},
        {"format": "1", "step": 2, "student": {}},
        {"format": 1, "step": "2", "student": {}},
        {"format": 1, "step": 7, "student": {}},
        {"step": 2, "student": {}},
    ],
)
def test_a_state_that_lacks_something_is_named_and_the_one_before_it_is_used(content, tmp_path):
    state_files.save_state(tmp_path, 1, small_state())
    torch.save(content, tmp_path / "00000002.pt")
    said: list[str] = []
    assert state_files.load_state(tmp_path, said.append, ["student"])["step"] == 1
    assert "00000002.pt is damaged" in said[0]


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_a_state_that_is_a_pipe_or_folder_is_refused_unopened(make, tmp_path):
    """No crash leaves one behind, so the state before it is not taken in its place."""
    state_files.save_state(tmp_path, 1, small_state())
    make(tmp_path / "00000002.pt")
    with pytest.raises(SurgdinoError, match=r"00000002\.pt"):
        state_files.load_state(tmp_path, print)


@pytest.mark.parametrize(
    "error", [KeyError("student"), TypeError("5"), RuntimeError("size mismatch\nfor x"), IndexError()]
)
def test_what_does_not_fit_a_run_is_one_line_with_its_folder(error, tmp_path):
    with (
        pytest.raises(SurgdinoError, match=r"state: the saved state is not one of this run") as caught,
        saving.restoring(tmp_path),
    ):
        raise error
    assert "\n" not in caught.value.line()


def test_moments_of_other_parameters_are_refused():
    def adam(size: int) -> torch.optim.Optimizer:
        weight = torch.nn.Parameter(torch.zeros(size))
        weight.grad = torch.ones(size)
        optimizer = torch.optim.AdamW([weight])
        optimizer.step()
        return optimizer

    saving.load_optimizer(adam(3), adam(3).state_dict())
    with pytest.raises(ValueError, match="exp_avg of parameter 0"):
        saving.load_optimizer(adam(3), adam(4).state_dict())
