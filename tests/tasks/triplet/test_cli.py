"""`surgdino finetune task=triplet` as its user runs it, on both releases of the triplets and their odd variants."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from surgdino.cli.main import main
from surgdino.datasets.synthetic.cholect50 import write_cholect50

COMPONENTS = ("I", "V", "T", "IV", "IT", "IVT")
BY_MAXIMUM = {
    (f"AP_{name}", f"triplet/{way}/component-maximum") for name in COMPONENTS for way in ("video-wise", "global")
}
BY_OWN_HEADS = {(f"AP_{name}", f"triplet/{way}/own-heads") for name in "IVT" for way in ("video-wise", "global")}
CHALLENGE = {("AP_IVT", f"triplet/challenge-{way}") for way in ("video-wise", "global")}

SPLIT = "{train: [1, 2], test: [4]}"


def finetune(root: Path, run: Path, *more: str, dataset: str = "cholect50", split: str = SPLIT) -> int:
    words = [
        "finetune",
        "task=triplet",
        f"dataset={dataset}",
        f"data.root={root}",
        f"data.store={root.parent / 'store'}",
    ]
    words += [f"data.split={split}", "model=vit_toy", "image_size=32", f"run.dir={run}"]
    return main([*words, "train.batch_size=16", "data.workers=1", "hardware.loader_workers=0", *more])


def scores_of(run: Path) -> dict[tuple[str, str], float | None]:
    rows = json.loads((run / "results.json").read_text())["scores"]
    return {(row["name"], row["protocol"]): row["value"] for row in rows}


@pytest.fixture(scope="module")
def released(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("cholect50")
    write_cholect50(root, (1, 2, 4), frames=24)
    return root


@pytest.fixture(scope="module")
def finished(released, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("triplet") / "run"
    assert finetune(released, run, "train.steps=60", "train.lr=0.01") == 0
    return run


def test_every_component_is_reported_under_every_protocol_and_both_ways(finished):
    found = scores_of(finished)
    assert set(found) >= BY_MAXIMUM | BY_OWN_HEADS | CHALLENGE
    values = [value for value in found.values() if value is not None]
    assert all(0 <= value <= 1 for value in values)


def test_the_heads_learn(finished):
    rows = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses[-1] < losses[0] / 2
    assert {"loss_I", "loss_V", "loss_T", "loss_IVT"} <= set(rows[0])


def test_predictions_hold_a_row_a_labelled_frame_and_a_column_a_class(finished):
    with (finished / "predictions" / "VID04.csv").open() as file:
        header, *rows = csv.reader(file)
    assert header[:2] == ["frame", "0"]
    assert len(header) == 1 + 100 + 6 + 10 + 15
    assert [int(row[0]) for row in rows] == list(range(24))
    values = np.array([row[1:] for row in rows], float)
    assert ((values >= 0) & (values <= 1)).all()


def test_evaluate_repeats_the_numbers_from_the_checkpoint_alone(finished):
    assert main(["evaluate", f"checkpoint={finished}", "hardware.loader_workers=0"]) == 0
    again = finished / "evaluation" / "cholect50-test"
    assert scores_of(again) == scores_of(finished)
    for name in ("per_operation.csv", "predictions/VID04.csv"):
        assert (again / name).read_bytes() == (finished / name).read_bytes()


@pytest.mark.slow
def test_a_validation_part_ends_training_early_and_chooses_the_step(released, tmp_path):
    words = ("train.epochs=30", "train.patience=2", "train.lr=0.02")
    assert finetune(released, tmp_path / "run", *words, split="{train: [1], val: [2], test: [4]}") == 0
    [stage] = json.loads((tmp_path / "run" / "results.json").read_text())["stages"]
    assert stage["score_name"] == "AP_IVT"
    assert stage["ended_early"]
    assert stage["best_step"] < stage["step"] < stage["steps"]


@pytest.mark.slow
def test_without_pooling_the_class_token_is_enough(released, tmp_path):
    assert finetune(released, tmp_path / "run", "train.steps=3", "task.pool_heads=0", "task.loss=focal") == 0


@pytest.mark.slow
def test_the_last_blocks_learn_with_the_heads(released, tmp_path):
    assert finetune(released, tmp_path / "run", "train.steps=2", "backbone=last4", "task.repeat_threshold=0.2") == 0
    assert set(scores_of(tmp_path / "run")) >= BY_MAXIMUM


@pytest.mark.slow
def test_the_older_release_goes_the_same_way(tmp_path):
    write_cholect50(tmp_path / "data", (1, 2, 4), frames=16, layout="cholect45")
    assert finetune(tmp_path / "data", tmp_path / "run", "train.steps=3", dataset="cholect45") == 0
    assert set(scores_of(tmp_path / "run")) >= BY_MAXIMUM | BY_OWN_HEADS


@pytest.mark.slow
def test_sparse_numbers_other_sizes_and_jpeg_are_borne(tmp_path):
    truth = write_cholect50(tmp_path / "data", (1, 2, 4), frames=30, sparse=True, suffix=".jpg")
    assert finetune(tmp_path / "data", tmp_path / "run", "train.steps=3") == 0
    with (tmp_path / "run" / "predictions" / "VID04.csv").open() as file:
        _, *rows = csv.reader(file)
    assert [int(row[0]) for row in rows] == sorted(truth[4])


@pytest.mark.parametrize(
    ("word", "told"),
    [("task.pool_heads=7", "a divisor of 64"), ("task.los=bce", "task.loss"), ("task.loss=mse", "bce")],
)
def test_settings_that_cannot_be_are_one_line(released, tmp_path, capsys, word, told):
    assert finetune(released, tmp_path / "run", word) == 2
    assert told in capsys.readouterr().err


def test_a_dataset_without_triplets_is_one_line(synthetic_cholec80, tmp_path, capsys):
    assert finetune(synthetic_cholec80, tmp_path / "run", dataset="cholec80") == 2
    assert "triplet" in capsys.readouterr().err
