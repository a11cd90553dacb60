"""`task.temporal=auto`: chosen on operations not learnt from, said, and the same after a stop."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from surgdino.cli.main import main
from surgdino.engine.stop import Stop
from surgdino.tasks.phase.choice import Choice
from surgdino.tasks.phase.settings import NONE
from tests.tasks.phase.test_cli import finetune, losses_of, results_of

QUICK = ("task.temporal=auto", "task.candidates=[clip,memory]", "train.steps=4", "task.width=8", "data.fps=2")


def chosen_in(run: Path) -> str:
    return json.loads((run / "checkpoint" / "task.json").read_text())["settings"]["temporal"]


def test_a_gain_counts_less_its_standard_error():
    base = {"a": 0.5, "b": 0.5}
    one_sided, sure = {"a": 0.9, "b": 0.45}, {"a": 0.6, "b": 0.52}
    assert Choice({NONE: base, "tcn": one_sided}).best == NONE
    choice = Choice({NONE: base, "tcn": one_sided, "clip": sure})
    assert choice.best == "clip"
    assert choice.gains("clip") == pytest.approx((0.06, 0.04))
    assert "chose clip on 2 operations" in choice.told()
    assert Choice({NONE: {"a": 0.5}, "tcn": {"a": 0.6}}).best == "tcn"
    assert Choice({NONE: {"a": 0.5}, "tcn": {"a": 0.5}}).best == NONE
    assert "frame by frame" in Choice().told()
    assert Choice().best == NONE


@pytest.mark.slow
def test_candidates_are_judged_on_the_validation_part(synthetic_cholec80, tmp_path, capsys):
    assert finetune(synthetic_cholec80, tmp_path, *QUICK) == 0
    assert "chose" in capsys.readouterr().out
    found, chosen = results_of(tmp_path), chosen_in(tmp_path)
    names = [stage["stage"] for stage in found["stages"]]
    assert names[:3] == ["frame", "temporal-clip", "temporal-memory"]
    assert names[3:] == ([] if chosen == NONE else [f"temporal-{chosen}"])
    assert any("on 1 operation not learnt from" in note for note in found["notes"])
    scores = {stage["stage"]: stage["score"] for stage in found["stages"]}
    best = max(scores, key=lambda name: scores[name])
    assert scores[f"temporal-{chosen}" if chosen != NONE else "frame"] == scores[best]
    assert main(["evaluate", f"checkpoint={tmp_path}", "hardware.loader_workers=0"]) == 0
    assert results_of(tmp_path / "evaluation" / "cholec80-test")["scores"] == found["scores"]


@pytest.mark.slow
def test_without_a_validation_part_training_operations_are_left_out_in_turn_and_a_stop_changes_nothing(
    synthetic_cholec80, tmp_path, monkeypatch
):
    given = {"split": "{train: [1, 2, 3], test: [4]}"}
    assert finetune(synthetic_cholec80, tmp_path / "whole", *QUICK, "task.temporal=auto_offline", **given) == 0
    whole, chosen = results_of(tmp_path / "whole"), chosen_in(tmp_path / "whole")
    tried = [f"choice-{fold}-{name}" for fold in (1, 2, 3) for name in (NONE, "clip_offline", "memory_offline")]
    assert [stage["stage"] for stage in whole["stages"]][:10] == [*tried, "frame"]
    assert all(stage["step"] == 4 for stage in whole["stages"])
    asked, give = iter(range(1, 1000)), Stop._next

    def give_or_stop(stop, source):
        stop.requested = next(asked) % 11 == 0
        return give(stop, source)

    monkeypatch.setattr(Stop, "_next", give_or_stop)
    calls = 1
    while not (tmp_path / "stopped" / "results.json").exists() and calls < 40:
        assert finetune(synthetic_cholec80, tmp_path / "stopped", *QUICK, "task.temporal=auto_offline", **given) == 0
        calls += 1
    assert calls > 3
    assert results_of(tmp_path / "stopped")["scores"] == whole["scores"]
    assert losses_of(tmp_path / "stopped") == losses_of(tmp_path / "whole")
    assert chosen_in(tmp_path / "stopped") == chosen


@pytest.mark.slow
def test_one_operation_to_learn_from_is_classified_frame_by_frame(synthetic_cholec80, tmp_path, capsys):
    assert finetune(synthetic_cholec80, tmp_path, *QUICK, split="{train: [1], test: [4]}") == 0
    assert "one operation to learn from leaves none to judge by" in capsys.readouterr().out
    assert chosen_in(tmp_path) == NONE


@pytest.mark.slow
@pytest.mark.parametrize("tokens", ["cls+mean", "attentive"])
def test_the_folds_use_the_backbone_as_it_came(synthetic_cholec80, tmp_path, tokens):
    words = ("backbone=last4", "train.batch_size=8", f"task.tokens={tokens}", "task.candidates=[clip]", "train.steps=2")
    assert finetune(synthetic_cholec80, tmp_path, *QUICK[:1], *words, split="{train: [1, 2], test: [4]}") == 0
    stages = [stage["stage"] for stage in results_of(tmp_path)["stages"]]
    assert stages[:5] == ["choice-1-none", "choice-1-clip", "choice-2-none", "choice-2-clip", "frame"]
    assert main(["evaluate", f"checkpoint={tmp_path}", "hardware.loader_workers=0"]) == 0
    assert results_of(tmp_path / "evaluation" / "cholec80-test")["scores"] == results_of(tmp_path)["scores"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("task.temporal=atuo", "Did you mean 'auto'?"),
        ("task.temporal=auto task.candidates=[tcn_offline]", "names of online models"),
        ("task.temporal=auto task.candidates=[lstm]", "there is no task.temporal=lstm"),
        ("task.post=median", "task.post"),
        pytest.param("task.temporal=auto task.align=true", "task.align needs the whole video", marks=pytest.mark.slow),
    ],
)
def test_wishes_that_cannot_be_are_one_line(synthetic_cholec80, tmp_path, capsys, words, told):
    assert finetune(synthetic_cholec80, tmp_path / "run", *words.split()) == 2
    *_, found = capsys.readouterr().err.splitlines()  # after the bar of the frame store, where it was built
    assert told in found
