"""What `surgdino finetune` and `evaluate` refuse, each in one line, and what they allow."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from surgdino.backbone.checkpoint import save_backbone
from surgdino.backbone.vit import build_backbone
from surgdino.cli.main import main
from surgdino.config import shipped, shipped_settings
from surgdino.datasets.card import load_card
from surgdino.datasets.manifest import Labels, Manifest
from surgdino.errors import SurgdinoError
from surgdino.inputs.labelled import split_manifest
from surgdino.inputs.settings import DataSettings
from surgdino.tasks import task_names
from surgdino.tasks.saved import load_task
from surgdino.verbs.report import try_report
from tests.tasks.sets import set_of, words_of

TASKS = pytest.mark.parametrize("task", task_names())


def results_of(run: Path) -> dict:
    return json.loads((run / "results.json").read_text())


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory) -> Path:
    return save_backbone(tmp_path_factory.mktemp("ckpt"), build_backbone(shipped_settings("model", "vit_toy")), {})


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["checkpoint=no/such/run"], r"no/such/run, checkpoint: does not exist"),
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
        (["train={lrr: 1}"], r"unknown setting 'train\.lrr'.*Did you mean 'lr'"),
        (["augment.transforms={a: 1}"], r"unknown setting 'augment\.transforms\.a'. Valid are: compression"),
        (["data.also={a: 1}"], r"data\.also cannot be used; expected a list, found \{a: 1\}"),
        (["recipe=demo"], r"recipe=demo sets train\.\w+, which surgdino finetune does not have"),
        (["recipe=demo", "train.warmup_steps=1"], r"unknown setting train\.warmup_steps"),
        (["train.lr=fast"], r"train\.lr cannot be used; expected a number"),
        (["train.patience=-1"], r"train\.patience cannot be used"),
        (["train.tune=lora", "train.low_rank=4"], r"what learns of a whole backbone; expected backbone=full, found"),
        (["backbone=last4", "train.low_rank=4"], r"what learns of a whole backbone; expected backbone=full, found"),
        (["backbone=full", "train.tune=loar"], r"train\.tune cannot be used; expected all, attn_proj, lora, last2 or"),
        (["backbone=full", "train.tune=last9"], r"train\.tune: unusable setting; expected at most the 2 blocks"),
        (["backbone=full", "train.tune=lora"], r"train\.tune=lora does not go with train\.low_rank=0"),
        (["backbone=full", "train.low_rank=64"], r"train\.low_rank: unusable setting; expected below the width 64"),
        (["backbone=last5"], r"backbone cannot be used; expected frozen or last4 or lora or attn_proj or full"),
        (["leakage=ignore"], "leakage cannot be used; expected refuse or allow"),
        (["image_size=30"], r"do not divide into patches; expected a multiple of 8, found 30. Use image_size=32"),
        (["augment.transforms.smok={p: 1}"], "augment.transforms.smok"),
        (["hardware=cuda"], r"hardware\.device: no GPU; expected one that torch can use"),
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


@pytest.mark.slow
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


@pytest.mark.slow
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
