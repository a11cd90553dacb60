"""What a run saves is written beside its steps: as it was when it was saved, in order, and no failure is lost."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

from surgdino.backbone.checkpoint import load
from surgdino.engine import monitor, saving, state_files
from surgdino.engine.step import train_step
from surgdino.engine.train import open_session, train
from surgdino.engine.writer import Writer
from surgdino.errors import SurgdinoError
from surgdino.transfers import host_copy
from tests.engine.test_training import final_tensors, plan_in


def fail() -> None:
    raise SurgdinoError("the disk is full")


def test_copies_keep_their_values_and_share_nothing():
    tree = {"a": [torch.ones(2), (torch.zeros(1), "x")], "b": ["said"]}
    copied = host_copy(tree)
    tree["a"][0].zero_()
    tree["b"].append("later")
    assert str(copied()) == str({"a": [torch.ones(2), (torch.zeros(1), "x")], "b": ["said"]})
    assert host_copy(tree, keep=False)() == {"a": [None, (None, "x")], "b": ["said", "later"]}


def test_things_are_written_one_by_one_and_all_before_the_end():
    written, go = [], threading.Event()
    with Writer() as writer:
        writer.submit(lambda: go.wait(10) and written.append(1))
        assert written == []
        go.set()
        writer.submit(lambda: written.append(2))
        assert written[:1] == [1]
    assert written == [1, 2]


def test_a_failure_is_raised_at_the_next_save_or_at_the_end():
    writer = Writer()
    writer.submit(fail)
    with pytest.raises(SurgdinoError, match="full"):
        writer.submit(pytest.fail)
    writer.submit(fail)
    with pytest.raises(SurgdinoError, match="full"), writer:
        pass


def test_beside_another_failure_it_is_said(capsys):
    writer = Writer()
    writer.submit(fail)
    with pytest.raises(KeyError), writer:
        raise KeyError
    assert "the disk is full" in "".join(capsys.readouterr())


def test_what_is_written_late_is_of_the_step_that_was_saved(tmp_path, monkeypatch):
    session = open_session(plan_in(tmp_path, probe=None))
    batches, go, write = session.batches(), threading.Event(), saving.save_backbone
    monkeypatch.setattr(saving, "save_backbone", lambda *arguments: go.wait(10) and write(*arguments))
    for _ in range(4):
        train_step(session, next(batches))
    before = {name: tensor.clone() for name, tensor in session.teacher.state_dict().items()}
    with session.writer:
        saving.save(session)
        train_step(session, next(batches))
        go.set()
    saved = state_files.load_state(tmp_path / "state", print)
    assert (saved["step"], load(tmp_path).info["steps"]) == (4, 4)
    assert [name for name, tensor in before.items() if not torch.equal(saved["teacher"][name], tensor)] == []
    shipped = load(tmp_path).backbone.vit.state_dict(prefix="backbone.vit.")
    assert [name for name, tensor in shipped.items() if not torch.equal(before[name], tensor)] == []
    assert not torch.equal(session.teacher.state_dict()["backbone.mask_token"], before["backbone.mask_token"])


@pytest.mark.parametrize(
    ("settings", "saved"),
    [
        ({"checkpoint_every": 2, "checkpoint_share": 0.0}, [2, 6]),
        ({"checkpoint_every": 2, "checkpoint_share": 1.0}, [2, 4, 6]),
        ({"checkpoint_every": 100, "checkpoint_minutes": 1e-9}, [3, 6]),
    ],
)
def test_saving_is_spaced_by_steps_and_by_time(tmp_path, monkeypatch, settings, saved):
    """No more than its share of the time, no longer apart than asked; the end is always saved."""
    steps, write = [], saving.save_state
    monkeypatch.setattr(monitor, "_LITTLE", 0.0)
    monkeypatch.setattr(saving, "save_state", lambda *arguments: steps.append(arguments[1]) or write(*arguments))
    train(plan_in(tmp_path, probe=None, steps=6, log_every=3, **settings))
    assert steps == saved


def test_a_disk_that_fills_up_ends_the_run_in_one_line_and_it_goes_on_later(tmp_path, monkeypatch):
    save, count = torch.save, iter(range(10))

    def full(content, file: Path) -> None:
        if next(count) == 1:
            raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")
        save(content, file)

    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", full)
        with pytest.raises(SurgdinoError, match="disk is full"):
            train(plan_in(tmp_path / "full"))
    assert [file.name for file in (tmp_path / "full" / "state").iterdir()] == ["00000005.pt"]
    train(plan_in(tmp_path / "whole"))
    assert train(plan_in(tmp_path / "full")).resumed_from == 5
    expected, found = final_tensors(tmp_path / "whole"), final_tensors(tmp_path / "full")
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []
