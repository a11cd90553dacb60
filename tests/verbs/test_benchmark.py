"""`surgdino benchmark`: one table of backbones; what is finished is kept, what fails costs nothing else."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from surgdino.backbone.checkpoint import save_backbone
from surgdino.backbone.vit import Backbone, build_backbone
from surgdino.cli.main import main
from surgdino.config import shipped_settings
from surgdino.discovery import files
from surgdino.evaluations.parts.outcome import Outcome
from surgdino.evaluations.stability import Stability
from surgdino.inputs.suite import open_suite
from surgdino.metrics.arrays import as_json
from surgdino.report.blocks import Heading
from surgdino.report.sections.benchmark import _labels_saved
from surgdino.runs.benchmark import Cell, Finished, found_of, table
from tests.tasks.sets import SETS

SUITE = """\
datasets:
  cholec80: {fps: 2}
  ours: {dataset: folder, operation_pattern: "(.+)"}
  m2cai16:
evaluations:
  phases: {evaluation: classification, classifier: knn, tokens: class, labels: [phase], shares: [1], seeds: 1}
  masks:
    {evaluation: segmentation, classifier: linear, classes: separate, layers: 1, scales: [1], patches: 500,
     tested: operations}
  stability: {frames: 50, neighbours: 3}
"""
FAULTY = """\
from dataclasses import dataclass
from surgdino.evaluations.parts.evaluation import Evaluation

@dataclass(frozen=True)
class Settings:
    pass

class Faulty(Evaluation[Settings]):
    Settings = Settings
    def labels(self):
        return (None,)
    def outcomes(self, given):
        yield 1 / 0
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory, synthetic_cholec80) -> Path:
    """Two backbones, a suite, pictures with masks, and the words that name them."""
    folder = tmp_path_factory.mktemp("benchmark")
    for seed, name in enumerate(("natural", "adapted")):
        torch.manual_seed(seed)
        save_backbone(folder / name, build_backbone(shipped_settings("model", "vit_toy")), {"image_size": 32})
    SETS["segmentation"].write(folder / "pictures")
    (folder / "suite.yaml").write_text(SUITE)
    return folder


def words(place: Path, cholec80: Path, run: str, *more: str) -> list[str]:
    own = [f"suite={place / 'suite.yaml'}", f"backbones=[{place / 'natural'},{place / 'adapted'}]"]
    data = [f"data.cholec80={cholec80}", f"data.ours={place / 'pictures'}", f"data.store={place / 'store'}"]
    small = [
        "data.short_side=64",
        "data.workers=1",
        "hardware=cpu",
        "hardware.precision=fp32",
        "hardware.loader_workers=0",
    ]
    every = [*own, *data, *small, f"run.dir={place / run}", *more]
    return ["benchmark", *{word.partition("=")[0]: word for word in every if word}.values()]


@pytest.fixture(scope="module")
def run(place, synthetic_cholec80) -> Path:
    assert main(words(place, synthetic_cholec80, "run")) == 0
    return place / "run"


@pytest.mark.slow
def test_the_report_shows_patch_features_of_every_dataset_as_colours(run):
    found = json.loads((run / "components.json").read_text())["datasets"]
    assert found.keys() == {"cholec80", "ours"}
    for rows in found.values():
        assert len(rows) == 4
        assert all(row["pictures"].keys() == {"natural", "adapted"} for row in rows)
        pictures = [base64.b64decode(text) for row in rows for text in row["pictures"].values()]
        assert all(cv2.imdecode(np.frombuffer(data, np.uint8), 1).shape == (4, 4, 3) for data in pictures)
    page = (run / "report.html").read_text()
    assert page.count("Patch features as colours") == 2
    assert page.count("data:image/png;base64,") == 2 * 2 * 4


def results_in(run: Path) -> dict:
    return json.loads((run / "results.json").read_text())


def without_time(run: Path) -> dict:
    return {key: value for key, value in results_in(run).items() if key not in ("cost", "environment")}


def test_the_table_has_every_backbone_and_its_change_from_the_first(run):
    results = results_in(run)
    assert list(results["backbones"]) == ["natural", "adapted"]
    assert {(row["dataset"], row["evaluation"]) for row in results["rows"]} == {
        ("cholec80", "phases"),
        ("cholec80", "stability"),
        ("ours", "masks"),
        ("ours", "stability"),
    }
    for row in results["rows"]:
        first, second = (row["values"][name] for name in ("natural", "adapted"))
        assert row["changes"].keys() == {"adapted"}
        change = row["changes"]["adapted"]
        for operation, value in change["per_operation"].items():
            assert value == pytest.approx(second["per_operation"][operation] - first["per_operation"][operation])
        enough = len(first["per_operation"]) >= 6
        assert (change["interval_95"][0] is not None) == enough
        if enough:
            assert change["interval_95"][0] <= change["value"] <= change["interval_95"][1]
    assert any(line.startswith("m2cai16: not at hand") for line in results["unused"])
    assert not results["failed"]
    cost = {(cell["dataset"], cell["evaluation"], cell["backbone"]) for cell in results["cost"]}
    assert ("cholec80", "features", "adapted") in cost


def test_the_first_backbone_is_like_itself(run):
    likeness = [row["values"]["natural"]["value"] for row in results_in(run)["rows"] if "CKA" in row["measure"]]
    assert likeness == pytest.approx([1, 1])


def test_the_report_shows_it(run):
    page = (run / "report.html").read_text()
    for shown in ("adapted against natural", "balanced accuracy", "Left out", "what it cost", "benchmark of backbones"):
        assert shown in page
    assert main(["report", str(run), f"out={run / 'again.html'}"]) == 0
    assert (run / "again.html").read_text() == page


def test_own_operations_stay_pseudonyms(run):
    for file in run.rglob("*"):
        if file.is_file() and file.suffix in (".json", ".yaml", ".html") and file.parent.name != "state":
            assert "case0" not in file.read_text(), file
    assert "op-" in (run / "results.json").read_text()


@pytest.fixture
def no_forward_pass(monkeypatch):
    monkeypatch.setattr(Backbone, "forward", lambda *_: pytest.fail("a forward pass"))
    monkeypatch.setattr(Backbone, "intermediate", lambda *_: pytest.fail("a forward pass"))


def test_what_is_finished_is_not_repeated(place, run, synthetic_cholec80, no_forward_pass, capsys):
    before = without_time(run)
    assert main(words(place, synthetic_cholec80, "run")) == 0
    assert "measured" not in capsys.readouterr().out
    assert without_time(run) == before


@pytest.mark.slow
def test_features_are_computed_once(place, run, synthetic_cholec80, no_forward_pass):
    """Further evaluations on the same frames, in another run, cost no forward pass."""
    ours = f"data.ours={{dataset: folder, root: {place / 'pictures'}, operation_pattern: '(.+)'}}"
    fps = f"data.cholec80={{root: {synthetic_cholec80}, fps: 2}}"
    assert main(words(place, synthetic_cholec80, "second", "suite=surgical", ours, fps)) == 0
    rows = results_in(place / "second")["rows"]
    assert {"k-NN", "linear", "dense k-NN", "same moment"} <= {row["evaluation"] for row in rows}


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_same_numbers(place, run, synthetic_cholec80, monkeypatch, capsys):
    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Stability, "outcomes", stop)
        assert main(words(place, synthetic_cholec80, "stopped")) == 130
    done = list((place / "stopped" / "evaluations").rglob("*.json"))
    assert len(done) == 2  # the features and the phases of the first backbone
    for file in done:
        if "phases" not in file.name:
            file.write_text(file.read_text()[:20])  # damaged
    capsys.readouterr()
    assert main(words(place, synthetic_cholec80, "stopped")) == 0
    assert "phases on cholec80, natural" not in capsys.readouterr().out
    assert without_time(place / "stopped") == without_time(run)


def test_a_failed_evaluation_is_named_and_costs_nothing_else(
    place, run, synthetic_cholec80, tmp_path, monkeypatch, capsys
):
    (tmp_path / "evaluations").mkdir()
    (tmp_path / "evaluations" / "faulty.py").write_text(FAULTY)
    suite = SUITE.replace("evaluations:\n", "evaluations:\n  broken: {evaluation: faulty}\n")
    (tmp_path / "suite.yaml").write_text(suite)
    monkeypatch.setenv("SURGDINO_EXTENSIONS", str(tmp_path))
    assert (
        main(words(place, synthetic_cholec80, "faulty", f"suite={tmp_path / 'suite.yaml'}", "data.ours=/nowhere")) == 1
    )
    results = results_in(place / "faulty")
    assert results["failed"]["broken on cholec80, adapted"] == "ZeroDivisionError: division by zero"
    assert "does not exist" in results["failed"]["ours"] or "no such folder" in results["failed"]["ours"]
    assert results["rows"] == [row for row in results_in(run)["rows"] if row["dataset"] == "cholec80"]


@pytest.mark.slow
def test_workers_measure_the_same_numbers_and_a_failed_cell_costs_no_other(
    place, run, synthetic_cholec80, tmp_path, monkeypatch, capsys
):
    distributed = pytest.importorskip("distributed", reason="the extra surgdino[dask] is not installed")
    (tmp_path / "evaluations").mkdir()
    (tmp_path / "evaluations" / "faulty_there.py").write_text(FAULTY)
    (tmp_path / "suite.yaml").write_text(SUITE + "  broken: {evaluation: faulty_there}\n")
    monkeypatch.setenv("SURGDINO_EXTENSIONS", str(tmp_path))
    alone = {"processes": False, "protocol": "tcp://", "dashboard_address": None, "silence_logs": 50}
    with distributed.LocalCluster(n_workers=2, threads_per_worker=2, **alone) as cluster:
        engine = f"data.engine={cluster.scheduler_address}"
        assert main(words(place, synthetic_cholec80, "there", engine, f"suite={tmp_path / 'suite.yaml'}")) == 1
        results = results_in(place / "there")
        assert results["rows"] == results_in(run)["rows"]
        assert results["failed"]["broken on cholec80, adapted"].startswith("ZeroDivisionError: division by zero")
        assert len(results["failed"]) == 4
        next((place / "there" / "evaluations").rglob("*phases*.json")).unlink()
        capsys.readouterr()
        assert main(words(place, synthetic_cholec80, "there", engine)) == 0
        assert capsys.readouterr().out.count("measured") == 1
    assert results_in(place / "there")["rows"] == results_in(run)["rows"]


@pytest.mark.slow
def test_operations_that_a_backbone_has_seen_are_learnt_from_and_not_tested(place, synthetic_cholec80, capsys):
    torch.manual_seed(1)
    facts = {"image_size": 32, "operations": ["camma/1"], "dataset": "cholec80"}
    save_backbone(place / "seen", build_backbone(shipped_settings("model", "vit_toy")), facts)
    of = f"backbones=[{place / 'natural'},{place / 'seen'}]"
    assert main(words(place, synthetic_cholec80, "leaks", of, "data.ours=")) != 0  # an empty folder is a slip
    assert main([word for word in words(place, synthetic_cholec80, "leaks", of) if "data.ours" not in word]) == 0
    results = results_in(place / "leaks")
    assert "1 operation that a backbone has seen is not tested: camma/1" in capsys.readouterr().out
    for row in results["rows"]:
        for values in row["values"].values():
            assert "camma/1" not in values["per_operation"]
    assert results["leakage"]["state"] != "shared"
    split = f"data.cholec80={{root: {synthetic_cholec80}, split: {{train: [2, 3], test: [1, 4]}}}}"
    alone = [word for word in words(place, synthetic_cholec80, "leaks2", of, split) if "data.ours" not in word]
    assert main(alone) == 2
    assert "the checkpoint has seen operations that it would be tested on" in capsys.readouterr().err
    assert main([*alone, "leakage=allow"]) == 0
    results = results_in(place / "leaks2")
    assert results["leakage"]["state"] == "shared"
    assert "LEAK" in capsys.readouterr().out
    assert all(set(row["values"]["seen"]["per_operation"]) <= {"camma/1", "camma/4"} for row in results["rows"])


@pytest.mark.parametrize(
    ("suite", "more", "words_of_it"),
    [
        (
            SUITE.replace("segmentation", "segmentatoin"),
            "",
            "there is no evaluation=segmentatoin. Did you mean 'segmentation'?",
        ),
        (SUITE.replace("seeds: 1", "seeds: 0"), "", "evaluations.phases.seeds cannot be used; expected at least 1"),
        (SUITE.replace("classifier: knn, ", ""), "", "evaluations.phases.classifier is not set"),
        (SUITE.replace("neighbours: 3", "neighbours: 3, datasets: [cholec]"), "", "did you mean 'cholec80'?"),
        (SUITE.partition("evaluations")[0], "", "evaluations is not set"),
        (SUITE.partition("phases")[0], "", "evaluations"),
        ("- a\n- b\n", "", "expected keys with values, found a list"),
        ("a: [1\n", "", "suite.yaml"),
        (SUITE, "suite=surgicle", "there is no suite=surgicle. Did you mean 'surgical'?"),
        (SUITE, "suite=/nowhere/suite.yaml", "/nowhere/suite.yaml"),
        (SUITE, "data.cholec8=/data", "data.cholec8: there is no dataset=cholec8. Did you mean 'cholec80'?"),
        (SUITE, "data.cholec80={root: ., splt: x}", "unknown setting data.cholec80.splt. Did you mean"),
        (SUITE, "data.fsp=2", "data.fsp: there is no dataset=fsp"),
        (SUITE, "data.cholec80=/nowhere/at/all", "/nowhere/at/all: the folder does not exist"),
        (SUITE, "image_size=33", "natural, image_size: the images do not divide into patches"),
        (SUITE.replace("fps: 2", "fps: 2, root: /nowhere"), "data.cholec80=", "data.cholec80.root cannot be used"),
    ],
)
def test_bad_input_is_one_line(suite, more, words_of_it, place, synthetic_cholec80, tmp_path, capsys):
    (tmp_path / "suite.yaml").write_text(suite)
    given = words(place, synthetic_cholec80, "bad", f"suite={tmp_path / 'suite.yaml'}", more)
    code = main([word for word in given if "data.ours" not in word])
    said = capsys.readouterr().err.strip()
    assert code == 2
    assert said.startswith("surgdino: ")
    assert "\n" not in said
    assert words_of_it.lower() in said.lower()


@pytest.mark.slow
def test_a_suite_of_ones_own_may_say_where_its_data_are(place, run, synthetic_cholec80, tmp_path, capsys):
    (tmp_path / "suite.yaml").write_text(SUITE.replace("{fps: 2}", f"{{fps: 2, root: {synthetic_cholec80}}}"))
    given = words(place, synthetic_cholec80, "own", f"suite={tmp_path / 'suite.yaml'}")
    assert main([word for word in given if not word.startswith(("data.ours", "data.cholec80"))]) == 0
    assert results_in(place / "own")["rows"] == results_in(run)["rows"][:6]
    assert {row["dataset"] for row in results_in(place / "own")["rows"]} == {"cholec80"}


def test_labels_that_a_dataset_lacks_are_named(place, synthetic_cholec80, tmp_path, capsys):
    suite = SUITE.replace("{evaluation: segmentation", "{evaluation: segmentation, datasets: [cholec80]")
    (tmp_path / "suite.yaml").write_text(suite)
    given = words(place, synthetic_cholec80, "lacking", f"suite={tmp_path / 'suite.yaml'}")
    assert main([word for word in given if "data.ours" not in word]) == 1
    failed = results_in(place / "lacking")["failed"]
    assert failed == {
        "masks on cholec80": "no such labels here; expected masks, found phase, tools. Run surgdino verify."
    }


@pytest.mark.parametrize("name", files("configs/suites"))
def test_every_shipped_suite_can_be_opened(name):
    suite = open_suite(name)
    assert suite.entries
    assert {kind for entry in suite.entries for kind in entry.evaluation.labels()} - {None}


def test_a_label_curve_says_how_few_operations_reach_what_all_taught_the_first():
    def finished(*values: float) -> Finished:
        outcomes = (Outcome.of_curve("AP", {"a": value, "b": value}, taught) for taught, value in enumerate(values, 1))
        return Finished("", 0, 0, 2, tuple(map(found_of, outcomes)))

    cells = {"first": (0.4, 0.5), "second": (0.5, 0.7), "third": (0.1, 0.2)}
    order = list(cells)
    rows = table({Cell("curve", "set", "tools", name): finished(*v) for name, v in cells.items()}, order)
    title, charts, bullets, values = _labels_saved(json.loads(json.dumps(as_json(rows))), order)
    assert title == Heading("Labelled operations")
    assert len(charts.svgs) == 1
    assert "labelled operations" in charts.svgs[0]
    reached = "tools: AP: what first learns from 2 (50.0) is"
    assert bullets.lines == [f"{reached} reached by second with 1", f"{reached} not reached by third"]
    assert [row[2] for row in values.rows] == ["40.0 (40.0, 40.0)", "50.0 (50.0, 50.0)"]
