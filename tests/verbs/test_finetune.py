"""`surgdino finetune` and `evaluate` as their user runs them, for every task there is."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

import surgdino
from surgdino.backbone.checkpoint import save_backbone
from surgdino.backbone.vit import build_backbone
from surgdino.cli.main import main
from surgdino.config import shipped, shipped_settings
from surgdino.datasets.card import load_card
from surgdino.datasets.manifest import Labels, Manifest
from surgdino.engine.saving import load_state
from surgdino.errors import SurgdinoError
from surgdino.inputs.labelled import split_manifest
from surgdino.inputs.settings import DataSettings
from surgdino.tasks import task_names
from surgdino.tasks.saved import load_task
from surgdino.tasks.task import open_task
from surgdino.tasks.training import fit as loop
from surgdino.verbs.report import try_report
from tests.engine.gloo import in_processes
from tests.tasks.sets import set_of, words_of

TASKS = pytest.mark.parametrize("task", task_names())


@TASKS
def test_every_task_has_settings_in_yaml(task):
    opened = open_task(shipped_settings("task", task))
    assert (opened.name, opened.settings.name) == (task, task)
    assert opened.LABELS


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> dict[str, Path]:
    """Task -> its set, written when it is first asked for."""
    folder = tmp_path_factory.mktemp("sets")

    class Written(dict):
        def __missing__(self, task: str) -> Path:
            root = folder / task / "set"
            set_of(task).write(root)
            self[task] = root
            return root

    return Written()


@pytest.fixture(scope="module")
def runs(sets, tmp_path_factory) -> dict[str, Path]:
    """Task -> a finished run, trained when it is first asked for."""
    folder = tmp_path_factory.mktemp("runs")

    class Finished(dict):
        def __missing__(self, task: str) -> Path:
            assert main(words_of(task, sets[task], folder / task)) == 0
            self[task] = folder / task
            return self[task]

    return Finished()


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


@TASKS
def test_the_loss_falls(runs, task):
    for stage, losses in losses_of(runs[task]).items():
        assert losses[-1] < losses[0], stage


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


def test_without_a_validation_part_it_says_that_the_last_step_counts(sets, tmp_path, capsys):
    more = ("data.split={train: [1, 2], test: [3]}", "train.steps=2", "task.temporal=none")
    assert main(words_of("phase", sets["phase"], tmp_path / "run", *more)) == 0
    said = capsys.readouterr().out
    assert "no early stopping, the last step counts" in said
    assert re.search(r"^train +\d+ of \d+ frames labelled, 2 videos, 2 operations$", said, re.MULTILINE)
    assert results_of(tmp_path / "run")["chosen_on"] == "nothing: the last step counts"
    assert_same_checkpoint(tmp_path / "run" / "checkpoint", tmp_path / "run" / "last")


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


# What cannot be


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory) -> Path:
    return save_backbone(tmp_path_factory.mktemp("ckpt"), build_backbone(shipped_settings("model", "vit_toy")), {})


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["checkpoint=no/such/run"], r"no/such/run: does not exist"),
        (["checkpoint={set}"], r"no checkpoint here; expected backbone\.safetensors"),
        (["checkpoint={pretrained}", "model.weights={pretrained}"], "two backbones to start from"),
        (["data.split=null"], r"data\.split is not set; expected one of 40-40"),
        (["data.split=40-41"], r"no split '40-41'.*Did you mean '40-40'"),
        (["data.split={test: [4]}"], "no train part here; expected videos to train on, found videos in test"),
        (["data.split={train: [1]}"], "no test part here"),
        (["data.part=train"], r"data\.part has no use here"),
        (["task=triplet"], r"no labels of kind 'triplet' here.*found phase, tools"),
        (["task=phases"], r"there is no task=phases. Did you mean 'phase'"),
        (["task.temporal=tcm"], "Did you mean 'tcn'"),
        (["task.temporl=tcn"], r"unknown setting 'task\.temporl'.*Did you mean 'task\.temporal'"),
        (["train.lrr=1"], r"unknown setting 'train\.lrr'.*Did you mean 'train\.lr'"),
        (["train.lr=fast"], r"train\.lr cannot be used; expected a number"),
        (["train.patience=-1"], r"train\.patience cannot be used"),
        (["backbone=last5"], r"backbone cannot be used; expected frozen or last4 or full"),
        (["leakage=ignore"], "leakage cannot be used; expected refuse or allow"),
        (["image_size=30"], r"do not divide into patches; expected a multiple of 8, found 30. Use image_size=32"),
        (["augment.transforms.smok={p: 1}"], "augment.transforms.smok"),
        (["hardware=cuda"], "no CUDA device"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_what_cannot_be_gets_one_line(sets, pretrained, tmp_path, capsys, words, told):
    if words == ["hardware=cuda"] and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    here = [
        word.format(set=sets["phase"], pretrained=pretrained) if "{set" in word or "{pre" in word else word
        for word in words
    ]
    assert main(words_of("phase", sets["phase"], tmp_path / "run", *here)) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert re.search(told, lines[0]), lines[0]
    assert not (tmp_path / "run").exists()


def test_a_damaged_label_file_is_told_by_file_and_row(sets, tmp_path, capsys):
    root = tmp_path / "set"
    shutil.copytree(sets["phase"], root)
    file = root / "phase_annotations" / "video02-phase.txt"
    file.write_text(file.read_text().replace("Preparation", "Preparatoin", 1))
    assert main(words_of("phase", root, tmp_path / "run")) == 2
    assert "video02-phase.txt, " in capsys.readouterr().err


def test_a_part_without_labels_is_told(sets, tmp_path, capsys):
    root = tmp_path / "set"
    shutil.copytree(sets["phase"], root)
    (root / "phase_annotations" / "video04-phase.txt").unlink()
    assert main(words_of("phase", root, tmp_path / "run")) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "video04" in line


def test_a_run_that_was_begun_with_the_misprint_goes_on(runs, sets, capsys):
    config = runs["phase"] / "config.yaml"
    text = config.read_text()
    config.write_text(text.replace("CalotTriangleDissection", "CarlotTriangleDissection"))
    try:
        assert main(words_of("phase", sets["phase"], runs["phase"])) == 0
    finally:
        config.write_text(text)
    assert "done before" in capsys.readouterr().out


def test_a_run_does_not_go_on_with_other_settings(runs, sets, capsys):
    assert main(words_of("phase", sets["phase"], runs["phase"], "train.lr=0.5")) == 2
    assert "train.lr was 0.01, is 0.5" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda folder: (folder / "head.safetensors").unlink(), "a backbone without a task's head"),
        (lambda folder: (folder / "head.safetensors").write_bytes(b"x" * 40), "head.safetensors: damaged"),
        (lambda folder: (folder / "backbone.safetensors").unlink(), "no checkpoint here"),
        (
            lambda folder: save_backbone(folder, build_backbone(shipped_settings("model", "vit_toy")), {}),
            "trained on another backbone than the one beside it",
        ),
    ],
    ids=["no head", "damaged head", "no backbone", "another backbone"],
)
def test_a_checkpoint_that_is_not_whole_is_not_evaluated(runs, tmp_path, capsys, change, told):
    shutil.copytree(runs["phase"] / "checkpoint", tmp_path / "checkpoint")
    change(tmp_path / "checkpoint")
    assert main(["evaluate", f"checkpoint={tmp_path / 'checkpoint'}"]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["data.root=/no/such"], "the folder does not exist"),
        (["part=train"], "has seen operations"),
        (["part=val"], "chosen on"),
        (["part=tests"], "part cannot be used"),
        (["dataset=cholect50"], "data.root is not set; found another dataset (cholect50)"),
        (["dta.root=x"], "Did you mean 'data.root'"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_an_evaluation_that_cannot_be_gets_one_line(runs, capsys, words, told):
    assert main(["evaluate", f"checkpoint={runs['phase']}", *words]) == 2
    assert told in capsys.readouterr().err


def test_a_head_is_tested_on_another_dataset_with_the_same_classes(runs, sets, tmp_path, capsys):
    """Phases of Cholec80, tested on CholecT50, which spells and calls them otherwise."""
    words = [f"data.root={sets['triplet']}", "data.split={test: [5]}", f"out={tmp_path / 'out'}"]
    assert main(["evaluate", f"checkpoint={runs['phase']}", "dataset=cholect50", *words]) == 0
    assert results_of(tmp_path / "out")["dataset"] == "cholect50"


def test_classes_of_another_dataset_meet_by_name_and_not_by_id(runs, sets, tmp_path):
    names = ["gallbladder_retraction", "Cleaning and coagulation", "GALLBLADDER PACKAGING", "gallbladder-dissection"]
    names += ["clipping-and-cutting", "CarlotTriangleDissection", "preparation"]
    words = [f"dataset.phases=[{','.join(names)}]", "hardware.loader_workers=0", f"out={tmp_path}"]
    words += [f"data.root={sets['phase']}", set_of("phase").words[-1]]
    assert main(["evaluate", f"checkpoint={runs['phase']}", "dataset=cholec80", *words]) == 0
    assert results_of(tmp_path)["scores"] == results_of(runs["phase"])["scores"]
    assert list(results_of(tmp_path)["classes"][0]["rows"])[1] == "CalotTriangleDissection"


@pytest.mark.parametrize(
    ("phases", "told"),
    [
        (
            ["TrocarPlacement", *load_card("cholec80").phases],
            "other classes than the head; expected its 7 classes, in any order, found 8; "
            "unknown to the head: TrocarPlacement. ",
        ),
        (load_card("cholec80").phases[:6], "found 6; missing in the dataset: GallbladderRetraction"),
        ([*load_card("cholec80").phases[:6], "Closure"], "Closure; missing in the dataset: GallbladderRetraction"),
        (list("1234567"), "The numbers seem to count from 1"),
    ],
)
def test_other_classes_are_refused_by_name(runs, phases, told):
    saved = load_task(runs["phase"])
    labels = Labels("phase", tuple(phases), {})
    with pytest.raises(SurgdinoError) as caught:
        saved.joined(saved.card, Manifest("other", Path(), (), {"phase": labels}))
    assert told in caught.value.line()


@pytest.mark.quick("phase", "segmentation")
@TASKS
def test_every_tasks_labels_are_brought_into_the_heads_order(runs, sets, task):
    saved = load_task(runs[task])
    data = DataSettings.of({"data": {**saved.config.data, "root": sets[task], "store": sets[task].parent / "store"}})
    manifest = split_manifest(saved.card, data, saved.task.LABELS)
    own = manifest.labels[saved.task.LABELS]
    theirs = replace(manifest, labels={own.task: own.in_classes(own.classes[::-1])})
    card = replace(saved.card, triplets=saved.card.triplets[::-1])
    found = saved.joined(card, theirs).labels[own.task]
    assert found.classes == saved.classes
    assert all((found.values[video].array == own.values[video].array).all() for video in own.values)


def test_the_recorded_settings_are_those_of_the_run(runs):
    cfg = yaml.safe_load((runs["phase"] / "config.yaml").read_text())
    assert cfg["task"]["name"] == "phase"
    assert cfg["model"]["timm_kwargs"]["embed_dim"] == 64


def test_a_report_that_fails_costs_no_run(tmp_path, capsys):
    assert try_report(tmp_path) is None
    assert "! the report could not be written" in capsys.readouterr().out


def test_how_a_label_table_was_understood_is_said(synthetic_cholec80, tmp_path, capsys):
    videos = shutil.copytree(synthetic_cholec80 / "videos", tmp_path / "ours")
    rows = "".join(f"video0{n},{k},a\n" for n in range(1, 5) for k in range(12))
    (videos / "labels.csv").write_text(f"video,second,label\n{rows}")
    split = {"train": ["video01", "video02"], "test": ["video03"]}
    data = shipped(DataSettings, "data", root=videos, store=tmp_path / "store", split=split)
    split_manifest(load_card("folder"), data, "phase")
    assert "labels.csv: 48 labelled moments, seconds, 4 of 4 videos" in capsys.readouterr().out
