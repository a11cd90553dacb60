"""The leak guard: what a checkpoint has seen is never tested unawares, whichever dataset filmed it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from surgdino.backbone.checkpoint import save_backbone
from surgdino.backbone.vit import build_backbone
from surgdino.cli.main import main
from surgdino.config import shipped_settings
from surgdino.datasets.manifest import Manifest, Video
from surgdino.datasets.synthetic.cholect50 import write_cholect50
from surgdino.errors import SurgdinoError
from surgdino.runs.history import History, Seen, seen_of
from surgdino.runs.leaks import find_leaks, overlap_table, refuse_leaks, refuse_shared_parts
from tests.tasks.sets import SMALL

CHOLEC80 = Seen("pretrain", "trained on", "cholec80", "40-40", "train", ("camma/1", "camma/2", "camma/6"))
CHOSEN = Seen("finetune", "chosen on", "cholect50", "rdv", "val", ("camma/8",))


def manifest_of(*videos: tuple[str, str, str]) -> Manifest:
    rows = tuple(Video(name, operation, Path(name), split=part) for name, operation, part in videos)
    return Manifest("cholect50", Path("root"), rows)


TESTED = manifest_of(("VID06", "camma/6", "test"), ("VID08", "camma/8", "test"), ("VID92", "camma/92", "test"))


def test_an_operation_is_known_again_in_another_dataset():
    report = find_leaks(History((CHOLEC80, CHOSEN)), TESTED, "cholect50 rdv test")
    found = {
        overlap.operation: (overlap.tested, [seen.description for seen in overlap.seen]) for overlap in report.overlaps
    }
    assert found == {
        "camma/6": (("VID06",), ["pretrain, trained on cholec80 40-40 train"]),
        "camma/8": (("VID08",), ["finetune, chosen on cholect50 rdv val"]),
    }
    assert report.stamp.startswith("2 of 3 tested operations had been seen before (pretrain, trained on cholec80")
    assert report.as_dict()["seen_operations"]["camma/6"] == ["pretrain, trained on cholec80 40-40 train"]


def test_nothing_seen_is_nothing_said(capsys):
    report = find_leaks(
        History((Seen.of_videos("pretrain", "trained on", "cholec80", None, None, ()),)), TESTED, "here", prints={}
    )
    assert (report.overlaps, report.stamp) == ((), None)
    assert report.as_dict()["tested_operations"] == 3
    refuse_leaks(report, "refuse")
    assert capsys.readouterr().out == ""


def test_what_was_seen_is_refused_after_the_table_and_allowed_with_a_stamp(capsys):
    report = find_leaks(History((CHOLEC80, CHOSEN)), TESTED, "cholect50 rdv test")
    with pytest.raises(SurgdinoError, match=r"cholect50 rdv test: the checkpoint has seen.*found 2 of 3 seen") as fault:
        refuse_leaks(report, "refuse")
    assert "leakage=allow" in fault.value.line()
    assert "\n" not in fault.value.line()
    shown = capsys.readouterr().out
    for cell in ("camma/6", "pretrain, trained on cholec80 40-40 train", "cholect50 rdv test: VID06"):
        assert cell in shown
    refuse_leaks(report, "allow")
    assert report.stamp in capsys.readouterr().out


APART = {
    "of": "cholect50 rdv test",
    "operations": ["camma/68", "op-123456"],
    "frames": 90,
    "cosine": 0.9,
    "nearest": 0.893,
    "backbone": "vit_toy",
    "left_out": [["camma/1", 0.25]],
}


def test_what_a_curation_kept_apart_is_said_with_how_far_it_goes(capsys):
    row = {"by": "pretrain", "how": "trained on", "dataset": "cholec80", "split": None, "part": None}
    info = {"seen": [{**row, "operations": ["camma/1"], "apart": APART}]}
    again = json.loads(json.dumps([each.as_dict() for each in History.of(info).seen]))
    assert again == info["seen"]
    report = find_leaks(
        History.of({**info, "seen": again}), manifest_of(("camma/68", "camma/68", "test")), "cholect50 rdv test"
    )
    assert report.apart == (
        "pretrain, trained on cholec80: disjoint by content from the tested operations, checked against 90 frames of "
        "cholect50 rdv test at cosine 0.900 of vit_toy; the nearest frame that stayed has 0.893; left out for it: 25% "
        "of camma/1",
    )
    assert report.as_dict()["apart"] == list(report.apart)
    refuse_leaks(report, "refuse")
    assert "disjoint by content" in capsys.readouterr().out
    more = [*info["seen"], {**row, "by": "finetune", "operations": ["camma/2"]}]
    (sentence,) = find_leaks(
        History.of({"seen": more}), manifest_of(("camma/68", "camma/68", "test"), ("camma/73", "camma/73", "test")), "x"
    ).apart
    assert "from 1 of the 2 tested operations" in sentence
    assert sentence.endswith("not checked so: finetune, trained on cholec80")


def test_nobody_is_told_of_a_check_that_was_not_made():
    row = {"by": "pretrain", "how": "trained on", "dataset": "cholec80", "split": None, "part": None}
    for apart in ({}, {"apart": None}, {"apart": APART}):
        info = {"seen": [{**row, "operations": ["camma/1"], **apart}]}
        assert (
            find_leaks(History.of(info), manifest_of(("camma/73", "camma/73", "test")), "cholect50 rdv test").apart
            == ()
        )


def test_operations_whose_training_is_not_told_count_too():
    """Checkpoints from before trainings were told one by one, and weights that were trained on from others."""
    info = {"dataset": "cholec80", "operations": ["camma/1", "camma/6"], "chosen_on": ["camma/8"]}
    assert {(seen.how, seen.operations) for seen in seen_of(info)} == {
        ("trained on", ("camma/1", "camma/6")),
        ("chosen on", ("camma/8",)),
    }
    told = {**info, "seen": [CHOLEC80.as_dict()]}
    assert [seen.operations for seen in seen_of(told)] == [CHOLEC80.operations, ("camma/8",)]
    assert json.loads(json.dumps(seen_of(told)[0].as_dict())) == CHOLEC80.as_dict()
    assert seen_of({}) == []


def test_what_pretraining_wrote_down_is_told_by_dataset_and_what_its_weights_had_seen_before_it():
    info = {
        "operations": ["camma/1", "camma/2", "camma/6", "m2/1", "x/1"],
        "datasets": [{"name": "m2cai16", "operations": ["m2/1"]}, {"name": "folder", "operations": []}],
        "initial_weights": {"operations": list(CHOLEC80.operations), "seen": [CHOLEC80.as_dict()]},
    }
    assert [(seen.description, seen.operations) for seen in seen_of(info)] == [
        ("pretrain, trained on cholec80 40-40 train", CHOLEC80.operations),
        ("pretrain, trained on m2cai16", ("m2/1",)),
        ("an earlier training, trained on unnamed data", ("x/1",)),
    ]


def test_a_long_table_is_cut():
    many = manifest_of(*((f"VID{n}", f"camma/{n}", "test") for n in range(60)))
    past = History((Seen("pretrain", "trained on", "x", None, None, many.operations),))
    assert overlap_table(find_leaks(past, many, "here")).row_count == 41


def test_a_split_cannot_train_on_what_it_tests():
    refuse_shared_parts(TESTED)
    with pytest.raises(SurgdinoError, match="camma/6 is in two parts"):
        refuse_shared_parts(manifest_of(("a", "camma/6", "train"), ("b", "camma/6", "test")))


# Through the command line, on two datasets that film the same operations.


@pytest.fixture(scope="module")
def cholect50(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("cholect50")
    write_cholect50(root, (1, 2, 4), frames=12, public_ids=True)
    return root


def pretrained(folder: Path, **facts) -> Path:
    torch.manual_seed(0)
    return save_backbone(folder, build_backbone(shipped_settings("model", "vit_toy")), facts)


def finetune(root: Path, run: Path, *more: str) -> int:
    words = ("task=phase", "task.temporal=none", "dataset=cholect50", f"data.root={root}", *SMALL[1:])
    place = (f"data.store={root.parent / 'store'}", f"run.dir={run}", "train.steps=2", "train.batch_size=4")
    return main(["finetune", *words, *place, "data.split={train: [1], test: [2, 4]}", *more])


@pytest.mark.slow
def test_finetune_refuses_and_allows_and_stamps(cholect50, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    checkpoint = pretrained(
        tmp_path / "pretrained", dataset="cholec80", operations=["camma/2", "camma/7"], seen=[CHOLEC80.as_dict()]
    )
    run = tmp_path / "run"
    assert finetune(cholect50, run, f"checkpoint={checkpoint}") == 2
    told = capsys.readouterr()
    assert "camma/2" in told.out
    assert "has seen operations that it would be tested on" in told.err
    assert not run.exists(), "nothing is begun that is refused"
    assert finetune(cholect50, run, f"checkpoint={checkpoint}", "leakage=allow") == 0
    assert "LEAK" in capsys.readouterr().out
    results = json.loads((run / "results.json").read_text())["leakage"]
    assert list(results["seen_operations"]) == ["camma/2"]
    assert "1 of 2 tested" in results["stamp"]
    info = json.loads((run / "checkpoint" / "model.json").read_text())
    assert info["operations"] == ["camma/1", "camma/2", "camma/6", "camma/7"]
    # What the run allowed stays stamped, and what it trained on is refused.
    assert main(["evaluate", f"checkpoint={run}"]) == 0
    assert "LEAK" in capsys.readouterr().out
    assert main(["evaluate", f"checkpoint={run}", "part=train", "leakage=refuse"]) == 2
    assert "finetune, trained on cholect50 inline split train" in capsys.readouterr().out


def test_what_chose_the_checkpoint_is_no_test_either(cholect50, tmp_path, capsys):
    chosen = pretrained(tmp_path / "chosen", dataset="cholect50", operations=["camma/9"], chosen_on=["camma/4"])
    assert finetune(cholect50, tmp_path / "run", f"checkpoint={chosen}") == 2
    assert "chosen on" in capsys.readouterr().err


@pytest.mark.slow
def test_a_clean_result_says_that_it_was_looked_for(cholect50, tmp_path):
    clean = pretrained(tmp_path / "clean", dataset="cholec80", operations=["camma/70"], history_unknown=[])
    assert finetune(cholect50, tmp_path / "run", f"model.weights={clean}", "model=vit_toy") == 0
    leakage = json.loads((tmp_path / "run" / "results.json").read_text())["leakage"]
    assert (leakage["seen_operations"], leakage["stamp"], leakage["tested_operations"]) == ({}, None, 2)
    info = json.loads((tmp_path / "run" / "checkpoint" / "model.json").read_text())
    assert info["operations"] == ["camma/1", "camma/70"], "what initial weights had seen before is remembered"
