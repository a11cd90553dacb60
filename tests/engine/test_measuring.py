"""A run measures its backbone while it trains: the training does not notice, and the best state is kept."""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from surgdino.backbone.checkpoint import load
from surgdino.engine import monitor
from surgdino.engine.probing import ProbeReport, ProbeSet
from surgdino.engine.probing.measures import Finding
from surgdino.engine.probing.report import ProbeHistory
from surgdino.engine.state_files import load_state
from surgdino.errors import SurgdinoError
from tests.engine.test_training import PROBE, final_tensors, lines, plan_in, stop_after, train, without_timings

LEARNING = {"head_warmup_steps": 1, "lr": 5e-3}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    return train(plan_in(tmp_path_factory.mktemp("measured"), probe={"every": 4, "both": True}, **LEARNING))


def test_losses_and_weights_are_the_same_bits_with_and_without_probes(tmp_path, measured):
    plain = train(plan_in(tmp_path, probe=None, **LEARNING))
    of_steps = [[row for row in without_timings(lines(result)) if "loss" in row] for result in (plain, measured)]
    assert of_steps[0] == of_steps[1]
    assert len(of_steps[0]) == 4
    expected, found = final_tensors(tmp_path), final_tensors(measured.metrics.parent)
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []
    assert plain.probes.start is None
    assert plain.probes.last is None
    assert not (tmp_path / "best").exists()


def test_it_measures_at_step_0_then_every_so_often_and_at_the_end(tmp_path):
    result = train(plan_in(tmp_path, probe={"every": 5}, **LEARNING))
    rows = [row for row in lines(result) if "probe_score" in row]
    assert [row["step"] for row in rows] == [0, 5, 10, 12]
    assert rows[0]["probe_cka_cls"] == pytest.approx(1, abs=1e-9)
    assert all(row["probe_seconds"] > 0 for row in rows)
    assert rows[0]["probe_per_operation"]["moment_alignment"].keys() == {"toy/0", "toy/1", "toy/2"}
    assert result.probes.last.as_dict()["score"] == rows[-1]["probe_score"]


def test_student_and_teacher_are_named_apart(measured):
    rows = [row for row in lines(measured) if "probe_score" in row]
    assert all("probe_student_score" in row and "probe_teacher_score" not in row for row in rows)
    assert rows[0]["probe_student_moment_alignment"] == rows[0]["probe_moment_alignment"]
    assert rows[-1]["probe_student_cka_cls"] < rows[-1]["probe_cka_cls"], "the teacher follows slowly"


@pytest.mark.slow
@pytest.mark.parametrize("step", [2, 7])
def test_a_resumed_run_has_measured_what_an_uninterrupted_one_has(tmp_path, monkeypatch, measured, step):
    settings = {"probe": {"every": 4, "both": True}, **LEARNING}
    with monkeypatch.context() as patched:
        stop_after(patched, step)
        train(plan_in(tmp_path, **settings))
    resumed = train(plan_in(tmp_path, **settings))
    probes = [[r for r in without_timings(lines(x)) if "probe_score" in r] for x in (resumed, measured)]
    assert probes[0] == probes[1]
    ours, theirs = resumed.probes, measured.probes
    assert (ours.start.as_dict(), ours.best, ours.best_step) == (theirs.start.as_dict(), theirs.best, theirs.best_step)
    expected, found = (load(x.metrics.parent / "best") for x in (measured, resumed))
    assert expected.info["steps"] == found.info["steps"]
    weights = found.backbone.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in expected.backbone.state_dict().items())


def scores_in_turn(monkeypatch: pytest.MonkeyPatch, scores: list[float]) -> None:
    """Let the probe find these scores, one after another, and the same share as `phase`."""
    turn = iter(scores)

    def measure(self: ProbeSet, backbone, autocast) -> ProbeReport:
        score = next(turn)
        return ProbeReport(
            score,
            (),
            {"phase_linear_balanced_accuracy": Finding.over("phase_linear_balanced_accuracy", {"a": score}, 400)},
            0.5,
        )

    monkeypatch.setattr(ProbeSet, "measure", measure)


def test_the_best_state_is_kept_beside_the_last(tmp_path, monkeypatch):
    scores_in_turn(monkeypatch, [0.5, 0.7, 0.6, 0.7])
    plan = plan_in(tmp_path, probe={"every": 4}, **LEARNING)
    result = train(replace(plan, model_json={**plan.model_json, "chosen_on": ["toy/2"]}))
    best, last = load(tmp_path / "best"), load(tmp_path)
    assert (best.info["steps"], last.info["steps"]) == (4, 12), "a tie changes nothing"
    assert (result.probes.best_step, result.probes.best) == (4, 0.7)
    assert best.info["probe"]["score"] == 0.7
    assert best.info["probe"]["score_at_step_0"] == 0.5
    assert last.info["probe"]["best_step"] == 4
    assert best.info["chosen_on"] == ["toy/2"]
    tensors = last.backbone.state_dict()
    assert any(not torch.equal(tensor, tensors[name]) for name, tensor in best.backbone.state_dict().items())
    assert result.probes.seconds == 2.0


def test_where_training_never_paid_the_best_is_what_came(tmp_path, monkeypatch):
    scores_in_turn(monkeypatch, [0.5, 0.4, 0.3, math.nan])
    plan = plan_in(tmp_path, probe={"every": 4}, **LEARNING)
    before = {name: tensor.clone() for name, tensor in plan.backbone.vit.state_dict().items()}
    train(plan)
    kept = load(tmp_path / "best")
    assert kept.info["steps"] == 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in kept.backbone.vit.state_dict().items())


def test_a_fall_below_step_0_is_said_in_words_once(tmp_path, monkeypatch, capsys):
    scores_in_turn(monkeypatch, [0.50, 0.49, 0.40, 0.39])
    result = train(plan_in(tmp_path, probe={"every": 4}, **LEARNING))
    said = [row for row in lines(result) if "worse than at step 0" in row.get("warning", "")]
    assert [row["step"] for row in said] == [8]
    assert "phase, linear probe (balanced accuracy)" in said[0]["warning"]
    assert "50.0 % at step 0, 40.0 % at step 8 (margin 2.5 %)" in said[0]["warning"]
    assert said[0]["warning"] in result.warnings
    assert "worse than at step 0" in capsys.readouterr().err
    assert [change.fell for change in result.probes.changes] == [True]


@pytest.mark.slow
def test_time_spent_measuring_is_in_the_runs_speed_and_not_in_its_steps(tmp_path, monkeypatch):
    real = ProbeSet.measure

    def slow(self, backbone, autocast):
        time.sleep(1.0)
        return replace(real(self, backbone, autocast), seconds=1.0)

    monkeypatch.setattr(ProbeSet, "measure", slow)
    result = train(plan_in(tmp_path, probe={"every": 1}, log_every=1, steps=5))
    assert result.probes.seconds == 6.0
    assert 5 * 8 / result.images_per_second > 6.0
    rows = [row for row in lines(result) if "loss" in row]
    assert sum(8 / row["images_per_second"] for row in rows) < 5 * 8 / result.images_per_second - 5.5
    assert all(row["data_wait"] < 0.9 and row["probe_wait"] > 0.3 for row in rows)


def test_a_run_does_not_go_on_with_other_frames_to_measure_on(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        stop_after(patched, 2)
        train(plan_in(tmp_path))
    plan = plan_in(tmp_path)
    other = ProbeSet(plan.store, 12, plan.probe.frames._preprocess)
    with pytest.raises(SurgdinoError, match="another probe"):
        train(replace(plan, probe=replace(plan.probe, frames=other)))


def test_what_would_take_too_much_time_is_left_out_but_for_step_0_and_the_last(tmp_path, monkeypatch):
    monkeypatch.setattr(monitor, "_LITTLE", 0.0)
    result = train(plan_in(tmp_path, probe={"every": 2, "share": 0.0}, steps=6))
    assert [row["step"] for row in lines(result) if "probe_score" in row] == [0, 6]
    assert [row["step"] for row in lines(result) if "measuring would take" in row.get("warning", "")] == [2]


def test_how_often_is_free_to_change(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        stop_after(patched, 2)
        train(plan_in(tmp_path, probe=PROBE))
    result = train(plan_in(tmp_path, probe={"every": 3}))
    assert [row["step"] for row in lines(result) if "probe_score" in row] == [0, 3, 6, 9, 12]


def test_the_state_file_holds_the_reference_of_drift(measured):
    saved = load_state(measured.metrics.parent / "state", print)
    assert [tuple(tensor.shape) for tensor in saved["probe_reference"]] == [(24, 64), (24, 64)]
    history = ProbeHistory()
    history.load_state_dict(json.loads(json.dumps(saved["probes"])))
    assert history.best_step == measured.probes.best_step
    assert Path(measured.checkpoint).exists()


# Until the probe says so


def scored(monkeypatch, scores):
    """The probe's scores in turn, the last one again and again."""
    left = list(scores)
    measure = ProbeSet.measure

    def as_told(self, *arguments):
        report = measure(self, *arguments)
        return replace(report, score=left.pop(0) if len(left) > 1 else left[0])

    monkeypatch.setattr(ProbeSet, "measure", as_told)


def test_a_run_until_probe_ends_by_itself_and_ships_the_best(tmp_path, monkeypatch):
    scored(monkeypatch, [0.1, 0.3, 0.2, 0.25, 0.4])
    plan = plan_in(tmp_path, probe={"every": 2}, until="probe", patience=2, steps=20)
    result = train(plan)
    assert (result.status, result.step) == ("finished", 6)
    shipped, best = (load_file(tmp_path / name / "backbone.safetensors") for name in ("checkpoint", "best"))
    assert all(torch.equal(shipped[key], best[key]) for key in best)
    assert load(tmp_path).info["steps"] == 2
    again = train(plan_in(tmp_path, probe={"every": 2}, until="probe", patience=2, steps=20))
    assert (again.status, again.step) == ("already finished", 6)


def test_until_probe_needs_a_probe(tmp_path):
    with pytest.raises(SurgdinoError, match="needs a probe"):
        train(plan_in(tmp_path, probe=None, until="probe"))
