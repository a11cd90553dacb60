"""The first and the last lines of a command, a word in a verb's place, and a plan."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from surgdino.cli.main import main
from surgdino.cli.offers import dataset_called
from surgdino.cli.start import after
from surgdino.exit_code import ExitCode
from surgdino.tasks import task_names
from tests.tasks.sets import set_of, words_of

VALUES = {
    "dataset": {"name": "cholec80", "phases": ["a"]},
    "data": {"root": "/data/my set", "split": None, "part": None, "exclude": ["test-of:cholec80/40-40"]},
    "checkpoint": "runs/phases",
}


@pytest.mark.parametrize(
    ("verb", "code", "said"),
    [
        ("finetune", ExitCode(0, Path("runs/phases")), "surgdino predict VIDEO checkpoint=runs/phases"),
        ("evaluate", ExitCode(0, Path("out")), "surgdino predict VIDEO checkpoint=runs/phases"),
        (
            "pretrain",
            ExitCode(0, Path("runs/a b")),
            "surgdino finetune task=phase dataset=cholec80 data.root='/data/my set' data.split=40-40 "
            "checkpoint='runs/a b'",
        ),
        (
            "verify",
            ExitCode(0),
            "surgdino pretrain dataset=cholec80 data.root='/data/my set' model.weights=FILE",
        ),
        ("verify", ExitCode(1), ""),
        ("score", ExitCode(0, None), ""),
        ("benchmark", ExitCode(1, Path("runs/b")), ""),
    ],
)
def test_what_comes_next_has_the_real_paths(verb, code, said):
    assert after(verb, code, VALUES) == said


def test_after_pretraining_on_everything_no_test_is_offered():
    values = {**VALUES, "data": {**VALUES["data"], "exclude": []}}
    assert after("pretrain", ExitCode(0, Path("run")), values) == "surgdino export run format=timm out=run-timm"


def test_after_a_prediction_its_run_is_evaluated_the_first_of_several(tmp_path):
    for seed in (0, 1):
        (tmp_path / f"seed{seed}" / "checkpoint").mkdir(parents=True)
        (tmp_path / f"seed{seed}" / "checkpoint" / "backbone.safetensors").touch()
    first = f"surgdino evaluate checkpoint={tmp_path / 'seed0'}"
    for checkpoint in (str(tmp_path), str(tmp_path / "seed0"), [str(tmp_path / f"seed{seed}") for seed in (0, 1)]):
        assert after("predict", ExitCode(0, Path("out")), {"checkpoint": checkpoint}) == first


def test_a_stopped_run_offers_its_own_command(monkeypatch):
    monkeypatch.setattr("sys.argv", ["surgdino", "finetune", "data.root=/data/my set"])
    told = after("finetune", ExitCode(0, Path("run"), stopped=True), VALUES)
    assert told == "surgdino finetune 'data.root=/data/my set' (goes on from here)"


def test_a_folder_in_a_verbs_place_offers_commands_with_its_path(tmp_path, capsys):
    folder = tmp_path / "CholecT50 (copy)"
    folder.mkdir()
    assert main([str(folder)]) == 2
    told = capsys.readouterr().err
    assert f"surgdino verify dataset=cholect50 data.root='{folder}'" in told
    assert f"surgdino pretrain dataset=cholect50 data.root='{folder}' model.weights=FILE" in told


def test_a_run_and_a_video_offer_what_is_done_with_them(tmp_path, capsys):
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "config.yaml").write_text("")
    (tmp_path / "checkpoint" / "task.json").write_text("")
    assert main([str(tmp_path)]) == 2
    assert f"surgdino evaluate checkpoint={tmp_path}" in capsys.readouterr().err
    video = tmp_path / "video.MP4"
    video.write_bytes(b"")
    assert main([str(video)]) == 2
    assert f"surgdino predict {video} checkpoint=RUN" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "dataset"), [("cholec80", "cholec80"), ("CholecT50-v2", "cholect50"), ("our videos", "folder")]
)
def test_a_folders_name_says_its_dataset(name, dataset):
    assert dataset_called(name) == dataset


@pytest.mark.slow
def test_a_plan_estimates_every_part_and_writes_nothing(synthetic_cholec80, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["recipe=demo", f"data.root={synthetic_cholec80}", f"data.store={tmp_path / 'store'}", "train.steps=40"]
    assert main(["pretrain", *words, f"run.dir={tmp_path / 'run'}", "--plan"]) == 0
    said = capsys.readouterr().out
    for part in ("decoding", "training", "checkpoints", "all"):
        assert re.search(rf"^ {part} ", said, re.MULTILINE), said
    assert "40 steps of" in said
    assert re.search(r"\d frames of 4 videos", said)
    assert "frames/s in each of" in said
    assert "An estimate" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("task", task_names())
def test_the_plan_of_a_fine_tuning_counts_its_stages_its_test_and_their_disk(task, tmp_path, capsys):
    (tmp_path / "data").mkdir()
    set_of(task).write(tmp_path / "data")
    words = words_of(task, tmp_path / "data", tmp_path / "run", "train.steps=2000")
    assert main([*words, "--plan"]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith(" ")]
    assert any("at most 2,000 steps" in row and "measured" in row for row in rows)
    assert any(re.match(r" test +\d+ frames", row) for row in rows)
    assert any(re.match(r" checkpoints .*\d [kM]B", row) for row in rows)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_a_verb_that_is_quick_has_no_plan(capsys):
    assert main(["verify", "data.root=x", "--plan"]) == 2
    assert "pretrain, finetune, curate, benchmark" in capsys.readouterr().err
