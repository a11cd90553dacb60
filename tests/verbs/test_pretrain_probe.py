"""`surgdino pretrain` measures on operations that it holds out of training, in its own dataset or in another."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from surgdino.config import shipped
from surgdino.datasets.card import load_card
from surgdino.datasets.manifest import FrameLabels, Labels
from surgdino.datasets.synthetic.cholect50 import write_cholect50
from surgdino.inputs.datasets import open_datasets
from surgdino.inputs.probe import ProbeData, choose_probe, joined_labels
from surgdino.inputs.settings import DataSettings, ProbeSettings
from tests.verbs.test_pretrain import pretrain

SHORT = ("train.steps=4", "train.log_every=2", "train.head_warmup_steps=1", "probe.every=2")
SPLIT = {"train": [1, 2], "val": [3], "test": [4]}


@pytest.fixture(scope="module")
def triplets(tmp_path_factory) -> Path:
    """Operations 2, 4 and 9 with triplets; the first two are in the synthetic Cholec80 as well."""
    root = tmp_path_factory.mktemp("cholect50")
    write_cholect50(root, videos=(2, 4, 9), frames=24, public_ids=True)
    return root


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> str:
    """One frame store for all runs here."""
    return f"data.store={tmp_path_factory.mktemp('store')}"


@pytest.fixture(scope="module")
def held_out(synthetic_cholec80, store, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("held-out") / "run"
    assert pretrain(synthetic_cholec80, run, *SHORT, store, "probe.hold_out=[1]") == 0
    return run


def probes(run: Path) -> list[dict]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if "probe_score" in row]


def facts(run: Path, name: str = "checkpoint") -> dict:
    return json.loads((run / name / "model.json").read_text())


def test_labels_of_several_datasets_meet_by_name():
    def dataset(prefix: str, *phases: str) -> SimpleNamespace:
        labels = Labels("phase", phases, {"a": FrameLabels(np.arange(2), np.arange(2))})
        return SimpleNamespace(prefix=prefix, manifest=SimpleNamespace(labels={"phase": labels}))

    sets = (
        dataset("x-", "Calot triangle", "Closure"),
        dataset("y-", "closure", "CarlotTriangle"),
        dataset("z-", "b", "c"),
    )
    joined = joined_labels(sets)["phase"]
    assert joined.classes == ("Calot triangle", "Closure")
    assert {video: values.array.tolist() for video, values in joined.values.items()} == {"x-a": [0, 1], "y-a": [1, 0]}


# Which operations


def asked(root: Path, data: dict[str, Any], probe: dict[str, Any]) -> tuple[ProbeData, set[str]]:
    """The probe of a configuration, and the operations that are left to train on."""
    card, settings = load_card("cholec80"), shipped(DataSettings, "data", root=root, **data)
    training = open_datasets(card, settings)
    source = choose_probe(shipped(ProbeSettings, "probe", **probe), card, settings, training)
    assert source is not None
    return source, numbers(op for left in source.left_of(training) for op in left.manifest.operations)


def numbers(operations) -> set[str]:
    return {operation.removeprefix("camma/") for operation in operations}


@pytest.mark.parametrize(
    ("data", "probe", "tested", "teaching", "trained"),
    [
        ({}, {}, "1234", "1234", "1234"),
        ({"split": SPLIT, "part": "train"}, {}, "3", "123", "12"),
        ({"split": SPLIT}, {}, "3", "1234", "124"),
        ({"split": SPLIT, "part": "train"}, {"part": None}, "12", "12", "12"),
        ({"split": {"train": [1, 2, 3], "test": [4]}, "part": "train"}, {}, "123", "123", "123"),
        ({"split": SPLIT, "part": "train"}, {"hold_out": [2]}, "2", "12", "1"),
        ({}, {"hold_out": 1}, "1", "1234", "234"),
        ({}, {"hold_out": 2}, "14", "1234", "23"),
        ({}, {"hold_out": ["video02", "camma/3"]}, "23", "1234", "14"),
        ({"exclude": ["camma/4"]}, {"hold_out": 2}, "13", "123", "2"),
    ],
)
def test_who_is_tested_who_teaches_and_who_is_trained_on(synthetic_cholec80, data, probe, tested, teaching, trained):
    source, left = asked(synthetic_cholec80, data, probe)
    assert numbers(source.tested) == set(tested)
    assert numbers(op for each in source.datasets for op in each.manifest.operations) == set(teaching)
    assert left == set(trained)
    assert source.held_out is not (left >= set(tested))


@pytest.mark.parametrize(
    ("data", "probe", "tested", "teaching", "trained"),
    [
        ({}, {}, "249", "249", "13"),
        ({}, {"hold_out": ["VID02"]}, "2", "249", "134"),
        ({"exclude": ["video04"]}, {}, "29", "29", "13"),
        ({}, {"split": {"train": [2], "val": [9], "test": [4]}}, "9", "29", "1234"),
    ],
)
def test_operations_of_another_dataset_are_held_out_of_this_one(
    synthetic_cholec80, triplets, data, probe, tested, teaching, trained
):
    probe = {"dataset": "cholect50", "root": str(triplets), **probe}
    source, left = asked(synthetic_cholec80, data, probe)
    assert numbers(source.tested) == set(tested)
    assert numbers(op for each in source.datasets for op in each.manifest.operations) == set(teaching)
    assert left == set(trained)


def test_frames_of_a_further_dataset_leave_training_with_their_operation(synthetic_cholec80, triplets):
    also = [{"dataset": "cholect50", "root": str(triplets)}]
    source, left = asked(synthetic_cholec80, {"also": also}, {"hold_out": ["camma/2"]})
    assert numbers(source.tested) == {"2"}
    assert left == {"1", "3", "4", "9"}
    assert {each.card.name for each in source.datasets} == {"cholec80", "cholect50"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("probe.hold_out=4",), "holds all of dataset=cholec80 out of training"),
        (("probe.hold_out=5",), "at most 4"),
        (("probe.hold_out=[video07]",), "video07"),
        (("probe.hold_out=[video02]", "data.exclude=[video02]"), "video02"),
        (("probe.dataset=cholect50",), "probe.root"),
        (("probe.hold=1",), "probe.hold_out"),
        (("probe.hold_out=1", "probe.every=0"), "data.exclude"),
    ],
    ids=["all", "more", "unknown", "excluded", "no-root", "typo", "never"],
)
def test_what_cannot_be_held_out_is_one_line_before_any_work(synthetic_cholec80, tmp_path, capsys, words, said):
    assert pretrain(synthetic_cholec80, tmp_path / "run", *SHORT, *words) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1
    assert not (tmp_path / "store").exists()


# What it leaves


@pytest.mark.slow
def test_the_validation_part_of_a_split_chooses_and_is_not_trained_on(synthetic_cholec80, store, tmp_path, capsys):
    split = "data.split={train: [1, 2], val: [3], test: [4]}"
    assert pretrain(synthetic_cholec80, tmp_path / "run", *SHORT, store, split, "data.part=train") == 0
    info = facts(tmp_path / "run")
    assert info["operations"] == ["camma/1", "camma/2"]
    assert info["chosen_on"] == ["camma/3"]
    rows = probes(tmp_path / "run")
    assert [row["step"] for row in rows] == [0, 2, 4]
    assert rows[0]["probe_per_operation"]["phase_linear_balanced_accuracy"].keys() == {"camma/3"}
    assert "probe_tools_linear_ap" in rows[0]
    assert facts(tmp_path / "run", "best")["steps"] in (0, 2, 4)
    said = " ".join(capsys.readouterr().out.split())
    assert "tested on 1 operation (camma/3), held out of training; labels: phase, tools" in said
    assert "phase, linear probe (balanced accuracy)" in said
    assert (tmp_path / "run" / "curves.png").stat().st_size > 30_000


@pytest.mark.slow
def test_another_dataset_is_measured_on_its_own_labels(synthetic_cholec80, triplets, store, tmp_path):
    words = ("probe.dataset=cholect50", f"probe.root={triplets}", "probe.hold_out=[VID02]")
    assert pretrain(synthetic_cholec80, tmp_path / "run", *SHORT, store, *words) == 0
    info = facts(tmp_path / "run")
    assert info["operations"] == ["camma/1", "camma/3", "camma/4"]
    assert info["chosen_on"] == ["camma/2"]
    found = probes(tmp_path / "run")[-1]
    for task in ("triplet", "instrument", "verb", "target"):
        assert 0 <= found[f"probe_{task}_linear_ap"] <= 1
    assert found["probe_per_operation"]["instrument_knn_ap"].keys() == {"camma/2"}


@pytest.mark.slow
def test_what_chose_the_initial_weights_is_remembered(synthetic_cholec80, held_out, store, tmp_path):
    words = (*SHORT[:-1], store, "probe.every=0", "data.exclude=[video01]", f"model.weights={held_out / 'best'}")
    assert pretrain(synthetic_cholec80, tmp_path / "run", *words) == 0
    assert facts(tmp_path / "run")["chosen_on"] == ["camma/1"]
    assert not (tmp_path / "run" / "best").exists()
    assert probes(tmp_path / "run") == []


@pytest.mark.slow
def test_how_often_may_change_and_what_is_held_out_may_not(synthetic_cholec80, held_out, store, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(held_out, run)
    more = (*SHORT[1:3], store, "train.steps=6", "probe.every=3")
    assert pretrain(synthetic_cholec80, run, *more, "probe.hold_out=[2]") == 2
    assert "probe.hold_out was [1], is [2]" in capsys.readouterr().err
    assert pretrain(synthetic_cholec80, run, *more, "probe.hold_out=[1]") == 0
    assert [row["step"] for row in probes(run)] == [0, 2, 4, 6]
