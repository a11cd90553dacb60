"""`surgdino finetune` over several folds and seeds: one folder, finished runs kept, and what they say together."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from surgdino.backbone.checkpoint import save_backbone
from surgdino.backbone.vit import build_backbone
from surgdino.cli.main import main
from surgdino.config import shipped, shipped_settings
from surgdino.datasets import card
from surgdino.datasets.synthetic.cholec80 import write_cholec80
from surgdino.errors import SurgdinoError
from surgdino.inputs.folds import are_several, planned_runs
from surgdino.inputs.settings import DataSettings
from surgdino.tasks.settings import HeadTraining
from tests.engine.gloo import in_processes
from tests.tasks.sets import words_of
from tests.verbs.test_finetune import results_of, run_words, stop_in_step

FEW = ("data.split={cv: 2}", "data.fps=1", "task.temporal=none", "train.steps=2", "train.log_every=1")
NAMES = ["fold1-seed0", "fold1-seed1", "fold2-seed0", "fold2-seed1"]


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("folds") / "set"
    write_cholec80(root, videos=4, seconds=6, size=(96, 64), seed=0, public_ids=True)
    return root


load_card = cache(card.load_card)


def planned(videos: Path, split: object, dataset: str = "cholec80", **train: object):
    data = shipped(DataSettings, "data", root=str(videos), split=split)
    training = shipped(HeadTraining, "finetune", "train", **train)
    assert are_several(data, training)
    return planned_runs(load_card(dataset), data, training, "phase")


# Which runs


@pytest.mark.parametrize("dataset", ["cholect50", "cholect45"])
def test_cv_is_every_fold_of_the_card_and_no_other_split(videos, dataset):
    runs = planned(videos, "cv", dataset)
    assert [(run.name, run.split, run.seed) for run in runs] == [(f"fold{k}", f"fold{k}", 0) for k in range(1, 6)]
    tested = [video for run in runs for video in load_card(dataset).splits[run.fold]["test"]]
    assert sorted(tested) == sorted(load_card(dataset).videos)


def test_folds_and_seeds_by_name(videos):
    runs = planned(videos, ["40-40", "40-8-32"], seeds=[3, 5])
    assert [run.name for run in runs] == ["40-40-seed3", "40-40-seed5", "40-8-32-seed3", "40-8-32-seed5"]
    assert [run.name for run in planned(videos, "40-40", seed=4, seeds=2)] == ["seed4", "seed5"]


def test_each_run_may_begin_with_a_backbone_of_its_own(videos):
    run = planned(videos, ["40-40"], seeds=[3])[0]
    cfg = {"checkpoint": "runs/{fold}/{seed}", "data": {"split": ["40-40"]}, "train": {"seeds": [3]}, "run": {}}
    assert run.settings(cfg, Path("a"), "plain") == {
        "checkpoint": "runs/40-40/3",
        "data": {"split": "40-40"},
        "train": {"seed": 3, "seeds": None},
        "run": {"dir": "a", "names": "plain"},
    }


def test_drawn_folds_test_every_operation_once_and_never_split_one(videos):
    runs = planned(videos, {"cv": 3, "val": "every 2nd"})
    parts = [{part: set(names) for part, names in run.split.items()} for run in runs]
    everything = {f"camma/{k}" for k in range(1, 5)}
    assert sorted(name for run in runs for name in run.split["test"]) == sorted(everything)
    for part in parts:
        assert set.union(*part.values()) == everything
        assert sum(map(len, part.values())) == 4
    assert planned(videos, {"cv": 3, "val": "every 2nd"}) == runs
    orders = {str([run.split for run in planned(videos, {"cv": 2}, seed=seed)]) for seed in range(4)}
    assert len(orders) > 1


@pytest.mark.parametrize(
    ("split", "seeds", "told"),
    [
        ("cv", None, r"dataset=cholec80 has no folds.*40-40, 40-8-32.*cv: 5"),
        ({"cv": 5}, None, "at least 5, one a fold, found 4 with labels"),
        ({"cv": 1}, None, r"data\.split\.cv cannot be used; expected at least 2"),
        ({"cv": 2, "val": "some"}, None, r"data\.split\.val cannot be used; expected such as every 5th"),
        ({"cv": 2, "test": [1]}, None, r"unknown setting data\.split\.test"),
        (["40-40", "40-40"], None, "expected splits that differ"),
        ([], None, "expected splits that differ"),
        ("40-40", 0, r"train\.seeds cannot be used"),
        ("40-40", [1, 1], "expected seeds that differ"),
    ],
)
def test_what_cannot_be_planned_is_one_line(videos, split, seeds, told):
    with pytest.raises(SurgdinoError, match=told):
        planned(videos, split, seeds=seeds)


def test_other_verbs_take_one_split(videos, tmp_path, capsys):
    words = [f"data.root={videos}", f"data.store={tmp_path}", "data.split=[40-40,40-8-32]"]
    assert main(["pretrain", "dataset=cholec80", *words]) == 2
    assert "surgdino finetune takes several" in capsys.readouterr().err


# The runs themselves


@pytest.fixture(scope="module")
def backbone(tmp_path_factory) -> Path:
    return save_backbone(tmp_path_factory.mktemp("backbone"), build_backbone(shipped_settings("model", "vit_toy")), {})


@pytest.fixture(scope="module")
def words(videos, backbone):
    def of(run: Path, *more: str) -> list[str]:
        return words_of("phase", videos, run, *FEW, f"checkpoint={backbone}", "train.seeds=2", *more)

    return of


@pytest.fixture(scope="module")
def run(words, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert main(words(folder)) == 0
    return folder


def test_a_fold_that_tests_what_was_seen_stops_all_of_them(videos, words, tmp_path, capsys):
    """Here each fold begins with a backbone of its own."""
    model = build_backbone(shipped_settings("model", "vit_toy"))
    stopped = ""
    for run in planned(videos, {"cv": 2}):
        seen = ["camma/2"] if "camma/2" in run.split["test"] else []
        save_backbone(tmp_path / run.fold, model, {"operations": seen})
        stopped = run.fold if seen else stopped
    assert main(words(tmp_path / "run", f"checkpoint={tmp_path / '{fold}'}")) == 2
    assert f"{stopped}-seed0: the checkpoint has seen operations" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_each_fold_and_seed_is_a_run_and_their_results_are_one(run, videos):
    whole = results_of(run)
    assert list(whole["runs"]) == NAMES
    each = [results_of(run / name) for name in NAMES]
    for place, row in enumerate(whole["scores"]):
        table = np.array([results["scores"][place]["value"] for results in each], dtype=float).reshape(2, 2)
        assert row["value"] == pytest.approx(np.nanmean(np.nanmean(table, 1)))
        assert set(row["per_operation"]) == {f"camma/{k}" for k in range(1, 5)}
    assert (run / "report.html").is_file()
    features = videos.parent / "store" / "features" / "cholec80"
    assert len([*features.rglob("*.npy")]) == 4, "of each video once"


@pytest.mark.slow
def test_stopped_in_a_fold_or_between_two_it_goes_on_and_ends_the_same(run, words, tmp_path, capsys, monkeypatch):
    ours = words(tmp_path / "run")
    with monkeypatch.context() as patched:
        stop_in_step(patched, 3)
        assert main(ours) == 0
    assert "Stopped at step 1 of 2" in capsys.readouterr().out
    assert not (tmp_path / "run" / "results.json").exists()
    first = (tmp_path / "run" / NAMES[0] / "results.json").stat().st_mtime_ns
    with monkeypatch.context() as patched:
        patched.setattr("surgdino.verbs.finetune.conclude", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        assert main(ours) == 130
    assert "the same command continues" in capsys.readouterr().err
    assert main(ours) == 0
    assert (tmp_path / "run" / NAMES[0] / "results.json").stat().st_mtime_ns == first
    assert results_of(tmp_path / "run")["scores"] == results_of(run)["scores"]
    assert capsys.readouterr().out.count("done before") >= 1
    assert main(words(tmp_path / "run", "train.lr=0.5")) == 2
    assert main(words(tmp_path / "run", "train.seeds=null", "data.split=40-40")) == 2
    assert "this folder holds a run with other settings" in capsys.readouterr().err


@pytest.mark.slow
def test_one_fold_is_evaluated_and_shared_like_any_run(run, tmp_path, capsys):
    assert main(["evaluate", f"checkpoint={run / NAMES[2]}", "hardware.loader_workers=0"]) == 0
    assert "reproduced: all values equal" in capsys.readouterr().out
    assert main(["share", str(run), f"out={tmp_path / 'out'}"]) == 0
    there = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*")}
    assert {"results.json", "report.html", *(f"{name}/checkpoint/head.safetensors" for name in NAMES)} <= there
    assert not [path for path in there if "state" in path or "predictions" in path]
    assert f"left out {NAMES[0]}/state: " in capsys.readouterr().out


@pytest.mark.slow
def test_own_folders_under_pseudonyms(videos, backbone, tmp_path, capsys):
    root = shutil.copytree(videos / "videos", tmp_path / "ours")
    rows = "".join(f"video0{n},{k},{'ab'[k // 3]}\n" for n in range(1, 5) for k in range(6))
    (root / "labels.csv").write_text(f"video,second,label\n{rows}")
    (root / "copied.mp4").write_bytes((root / "video01.mp4").read_bytes())  # without labels it is in no fold
    ours = words_of("phase", root, tmp_path / "run", "dataset=folder", *FEW, f"checkpoint={backbone}")
    for _ in range(2):
        assert main(ours) == 0
    assert "done before" in capsys.readouterr().out
    results = (tmp_path / "run" / "results.json").read_text()
    assert len(json.loads(results)["scores"][0]["per_operation"]) == 4
    assert "video0" not in results
    assert main(["share", str(tmp_path / "run"), f"out={tmp_path / 'out'}"]) == 0
    (root / "labels.csv").write_text(
        f"video,second,label\n{rows}" + rows[: len(rows) // 4].replace("video01", "copied")
    )
    ours = words_of("phase", root, tmp_path / "other", "dataset=folder", *FEW, "data.split={cv: 5}")
    assert main(ours) == 2
    assert re.search(r"fold\d: the checkpoint has seen operations", capsys.readouterr().err)
    assert not [*(tmp_path / "other").glob("fold*")]


@pytest.mark.slow
def test_processes_train_the_folds_together(words, tmp_path):
    assert in_processes(2, run_words, words(tmp_path / "run", "train.seeds=null"), joined=False) == [0, 0]
    assert results_of(tmp_path / "run")["folds"] == ["fold1", "fold2"]
