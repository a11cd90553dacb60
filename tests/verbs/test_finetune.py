"""`surgdino finetune` and `evaluate` as their user runs them, for every task there is."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import surgdino
from surgdino.backbone.low_rank import LAYERS
from surgdino.cli.main import main
from surgdino.config import shipped_settings
from surgdino.engine.state_files import load_state
from surgdino.tasks import task_names
from surgdino.tasks.task import open_task
from surgdino.tasks.training import fit as loop
from tests.engine.gloo import in_processes
from tests.tasks.sets import words_of

TASKS = pytest.mark.parametrize("task", task_names())


@pytest.mark.quick("phase", "segmentation")
@TASKS
def test_every_task_has_settings_in_yaml(task):
    opened = open_task(shipped_settings("task", task))
    assert (opened.name, opened.settings.name) == (task, task)
    assert opened.LABELS


def results_of(run: Path) -> dict:
    return json.loads((run / "results.json").read_text())


def losses_of(run: Path) -> dict[str, list[float]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {
        stage: [r["loss"] for r in rows if r["stage"] == stage and "loss" in r] for stage in {r["stage"] for r in rows}
    }


def assert_same_checkpoint(ours: Path, theirs: Path) -> None:
    for name in ("backbone.safetensors", "head.safetensors"):
        found, expected = load_file(ours / name), load_file(theirs / name)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected), name


def stop_in_step(patched: pytest.MonkeyPatch, number: int) -> None:
    """SIGTERM to this process in the middle of its step `number` of training."""
    step, count = loop._train_step, iter(range(1, 10_000))

    def and_signal(*arguments) -> None:
        step(*arguments)
        if next(count) == number:
            os.kill(os.getpid(), signal.SIGTERM)

    patched.setattr(loop, "_train_step", and_signal)


@pytest.mark.quick("phase", "segmentation")
@TASKS
def test_a_run_folder_holds_what_the_docs_promise(runs, task):
    run = runs[task]
    files = ("config.yaml", "environment.json", "metrics.jsonl", "results.json", "per_operation.csv", "predictions")
    for name in (*files, "checkpoint/head.safetensors", "checkpoint/task.json", "last/head.safetensors", "state"):
        assert (run / name).exists(), name
    assert any((run / "predictions").iterdir())
    results = results_of(run)
    assert (results["task"], results["part"], results["seed"]) == (task, "test", 0)
    assert results["leakage"]["stamp"] is None
    assert results["scores"]
    assert all(row["protocol"] for row in results["scores"])
    with (run / "per_operation.csv").open() as stream:
        assert {row["operation"] for row in csv.DictReader(stream)} == set(results["scores"][0]["per_operation"])
    info = json.loads((run / "checkpoint" / "model.json").read_text())
    assert info["operations"]
    assert info["chosen_on"]
    assert not set(info["operations"]) & set(info["chosen_on"])
    assert not set(results["scores"][0]["per_operation"]) & {*info["operations"], *info["chosen_on"]}
    assert surgdino.load(run).backbone.embed_dim == 64


@pytest.mark.quick("phase")
@TASKS
def test_the_loss_falls(runs, task):
    for stage, losses in losses_of(runs[task]).items():
        assert losses[-1] < losses[0], stage


@pytest.mark.quick("phase", "segmentation")
@TASKS
def test_evaluate_repeats_the_numbers_from_the_checkpoint_folder_alone(runs, sets, task, tmp_path):
    """Where the data lie is not in it, as it is made to be handed on."""
    alone, root = tmp_path / "run" / "checkpoint", sets[task]
    shutil.copytree(runs[task] / "checkpoint", alone)
    words = [f"data.root={root}", f"data.store={root.parent / 'store'}", "hardware.loader_workers=0"]
    assert main(["evaluate", f"checkpoint={alone}", *words, f"out={tmp_path / 'out'}"]) == 0
    before, again = results_of(runs[task]), results_of(tmp_path / "out")
    for key in ("scores", "classes", "headline", "notes", "split", "settings", "leakage"):
        assert again[key] == before[key], key
    assert _files(tmp_path / "out" / "predictions") == _files(runs[task] / "predictions")


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.quick("phase")
@TASKS
def test_a_stopped_run_goes_on_bit_for_bit_and_a_finished_one_is_only_told(
    runs, sets, task, tmp_path, capsys, monkeypatch
):
    words = words_of(task, sets[task], tmp_path / "run")
    with monkeypatch.context() as patched:
        stop_in_step(patched, 13)
        assert main(words) == 0
    assert "Stopped at step 13 of 30" in capsys.readouterr().out
    assert not (tmp_path / "run" / "results.json").exists()
    assert main(words) == 0
    assert results_of(tmp_path / "run")["scores"] == results_of(runs[task])["scores"]
    for name in ("checkpoint", "last"):
        assert_same_checkpoint(tmp_path / "run" / name, runs[task] / name)
    assert losses_of(tmp_path / "run") == losses_of(runs[task])
    assert main(words) == 0
    assert "done before" in capsys.readouterr().out


@pytest.mark.slow
@TASKS
@pytest.mark.parametrize("backbone", ["last4", "full"])
def test_the_backbone_learns_too_and_is_evaluated_as_it_became(runs, sets, task, backbone, tmp_path):
    run = tmp_path / "run"
    assert main(words_of(task, sets[task], run, f"backbone={backbone}", "train.steps=4", "train.validate_every=4")) == 0
    before = load_file(runs[task] / "checkpoint" / "backbone.safetensors")
    after = load_file(run / "checkpoint" / "backbone.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert "blocks.1.mlp.fc2.weight" in changed
    assert ("patch_embed.proj.weight" in changed) == (backbone == "full")
    assert main(["evaluate", f"checkpoint={run}", "hardware.loader_workers=0"]) == 0
    [again] = (run / "evaluation").iterdir()
    assert results_of(again)["scores"] == results_of(run)["scores"]


@pytest.mark.slow
@TASKS
@pytest.mark.parametrize("tune", ["lora", "last1+lora"])
def test_adapters_learn_go_on_bit_for_bit_and_leave_plain_weights(runs, sets, task, tune, tmp_path, monkeypatch):
    named = ("backbone=lora",) if tune == "lora" else ("backbone=full", f"train.tune={tune}")
    more = (*named, "train.low_rank=4", "train.steps=4", "train.validate_every=2")
    whole, parts = (words_of(task, sets[task], tmp_path / name, *more) for name in ("whole", "parts"))
    assert main(whole) == 0
    with monkeypatch.context() as patched:
        stop_in_step(patched, 3)
        assert main(parts) == 0
    assert main(parts) == 0
    for name in ("checkpoint", "last"):
        assert_same_checkpoint(tmp_path / "whole" / name, tmp_path / "parts" / name)
    before = load_file(runs[task] / "checkpoint" / "backbone.safetensors")  # frozen there: as it came
    after = load_file(tmp_path / "whole" / "checkpoint" / "backbone.safetensors")
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    adapted = {f"blocks.0.{layer}.weight" for layer in LAYERS}
    assert adapted <= changed
    in_first = {name for name in changed if not name.startswith("blocks.1.")}
    assert {name for name in in_first - adapted if "norm" not in name} == set()
    assert ("blocks.1.mlp.fc1.bias" in changed) == (tune == "last1+lora")
    assert main(["evaluate", f"checkpoint={tmp_path / 'whole'}", "hardware.loader_workers=0"]) == 0
    [again] = (tmp_path / "whole" / "evaluation").iterdir()
    assert results_of(again)["scores"] == results_of(tmp_path / "whole")["scores"]


def run_words(words: list[str]) -> int:
    return main(words)


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(sets, tmp_path):
    """The same batches, cut in two: sums in another order, so gradients to fp32 rounding, a few 1e-6 of their scale.

    Weights are not compared one by one: AdamW moves a weight whose gradient is smaller than its rounding by +lr here
    and by -lr there. Such weights hardly change the loss or the other gradients. So the loss of every step and the mean
    gradient (AdamW's first moment, which is linear in the gradients) are compared, with room for ten such steps.
    """
    more = ("task.temporal=none", "train.steps=10", "train.log_every=1")
    words = {name: words_of("phase", sets["phase"], tmp_path / name, *more) for name in ("one", "two")}
    assert main(words["one"]) == 0
    assert in_processes(2, run_words, words["two"], joined=False) == [0, 0]
    one, two = ([*losses_of(tmp_path / name).values()] for name in words)
    assert len(one) == 1
    assert len(one[0]) == 10
    assert two == [pytest.approx(one[0], rel=1e-4)]
    one, two = (moments_of(tmp_path / name) for name in words)
    assert len(one) == len(two) > 0
    for ours, theirs in zip(two, one, strict=True):
        assert (ours - theirs).norm() < 1e-3 * theirs.norm()
    assert results_of(tmp_path / "two")["headline"]["name"] == results_of(tmp_path / "one")["headline"]["name"]


def moments_of(run: Path) -> list[torch.Tensor]:
    """AdamW's first moments, of every parameter that the last stage trains."""
    [stage] = [path for path in (run / "state").iterdir() if path.is_dir()]
    return [moments["exp_avg"] for moments in load_state(stage, print)["optimizer"]["state"].values()]


@pytest.mark.slow
def test_bf16_where_it_is_asked_for_learns_and_goes_on_bit_for_bit(sets, tmp_path, monkeypatch):
    """On every CPU: where it has no bf16 of its own, torch emulates it."""
    more = ("task.temporal=none", "backbone=full", "train.steps=6", "train.validate_every=6", "train.log_every=2")
    words = {
        name: words_of("phase", sets["phase"], tmp_path / name, *more, f"hardware.precision={name[:4]}")
        for name in ("fp32", "bf16", "bf16 in parts")
    }
    assert main(words["fp32"]) == main(words["bf16"]) == 0
    with monkeypatch.context() as patched:
        stop_in_step(patched, 4)
        assert main(words["bf16 in parts"]) == 0
    assert main(words["bf16 in parts"]) == 0
    [wide], [narrow], [again] = (losses_of(tmp_path / name).values() for name in words)
    assert narrow != wide
    assert narrow == pytest.approx(wide, rel=0.1)
    assert again == narrow
    assert_same_checkpoint(tmp_path / "bf16 in parts" / "last", tmp_path / "bf16" / "last")


@pytest.mark.slow
def test_a_fine_tuned_backbone_is_a_start_for_another_and_remembers(runs, sets, tmp_path):
    more = (f"checkpoint={runs['phase']}", "train.steps=2", "task.temporal=none")
    words = words_of("phase", sets["phase"], tmp_path / "run", *more)
    assert main(words) == 0, "the same split again: nothing that it tests was seen"
    info = json.loads((tmp_path / "run" / "checkpoint" / "model.json").read_text())
    assert [seen["by"] for seen in info["seen"]] == ["finetune"] * 4
    swapped = "data.split={train: [3], test: [1, 2, 4]}"
    assert main(words_of("phase", sets["phase"], tmp_path / "other", *more, swapped)) == 2


@pytest.mark.slow
def test_without_a_validation_part_it_says_that_the_last_step_counts(sets, tmp_path, capsys):
    more = ("data.split={train: [1, 2], test: [3]}", "train.steps=2", "task.temporal=none")
    assert main(words_of("phase", sets["phase"], tmp_path / "run", *more)) == 0
    said = capsys.readouterr().out
    assert "no early stopping, the last step counts" in said
    assert re.search(r"^train +\d+ of \d+ frames labelled, 2 videos, 2 operations$", said, re.MULTILINE)
    assert results_of(tmp_path / "run")["chosen_on"] == "nothing: the last step counts"
    assert_same_checkpoint(tmp_path / "run" / "checkpoint", tmp_path / "run" / "last")


@pytest.mark.slow
def test_a_picture_that_fails_costs_no_numbers(sets, tmp_path, capsys, monkeypatch):
    def fail(*_: object) -> None:
        raise RuntimeError("no font")

    monkeypatch.setattr("surgdino.tasks.phase.task.PhaseTask.draw", fail)
    run = tmp_path / "run"
    assert main(words_of("phase", sets["phase"], run, "train.steps=2", "task.temporal=none")) == 0
    assert "could not be drawn: RuntimeError: no font" in " ".join(capsys.readouterr().out.split())
    assert results_of(run)["scores"]
    assert (run / "report.html").is_file()


@pytest.mark.slow
def test_random_weights_are_said_plainly(runs, sets, capsys):
    main(words_of("phase", sets["phase"], runs["phase"]))
    assert "this starts from random weights" in capsys.readouterr().out.replace("\n", " ")
