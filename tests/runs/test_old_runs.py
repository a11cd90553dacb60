"""Runs made before the redesign of November 2026 still load, resume, report, compare and evaluate.

`fixture_2026_11/runs.tar.xz` was written by revision d131c9f: a generated Cholec80 of four small videos (data/), a
pretraining run stopped after 3 of 8 steps (runs/stopped), the same run uninterrupted (runs/whole), and a fine-tuning of
phases with a temporal model (runs/phase), each as the command in its environment.json left it, without pictures.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import tarfile
from operator import itemgetter
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import surgdino
from surgdino.cli.main import main
from tests.engine.golden_losses import machine_kind

FIXTURE = Path(__file__).parent / "fixture_2026_11"
MADE_ON = json.loads((FIXTURE / "machine.json").read_text())


@pytest.fixture(scope="module")
def old(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(FIXTURE / "runs.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture
def here(old, monkeypatch) -> Path:
    """The runs' commands name data, store and run folder from where they were typed."""
    monkeypatch.chdir(old)
    return old


def command_of(run: Path) -> list[str]:
    """The words that made a run. The split, whose value has spaces, was one of them."""
    command = json.loads((run / "environment.json").read_text())["command"]
    return shlex.split(re.sub(r"(data\.split=\{.*?\})", r"'\1'", command))[1:]


def rows_of(run: Path, key: str) -> dict[int, float]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: row[key] for row in rows if key in row}


@pytest.mark.quick("phase")
@pytest.mark.parametrize("name", ["stopped", "whole", "phase"])
def test_its_backbone_loads_and_its_report_is_written(here, name, tmp_path, capsys):
    with torch.no_grad():
        assert surgdino.load(Path("runs") / name)(torch.rand(2, 3, 32, 32)).cls.shape == (2, 8)
    assert main(["report", f"runs/{name}", f"out={tmp_path / 'report.html'}"]) == 0
    assert "<html" in (tmp_path / "report.html").read_text()


@pytest.mark.slow
def test_two_of_them_are_compared(here, tmp_path, capsys):
    assert main(["compare", "runs/stopped", "runs/whole", f"out={tmp_path / 'compare.html'}"]) == 0
    assert (tmp_path / "compare.html").exists()


@pytest.mark.quick("phase")
@pytest.mark.parametrize(("name", "said"), [("whole", "This run is finished"), ("phase", "done before")])
def test_a_finished_run_is_found_finished(here, name, said, capsys):
    file = here / "runs" / name / "checkpoint" / "backbone.safetensors"
    before = load_file(file)
    code, printed = main(command_of(here / "runs" / name)), capsys.readouterr()
    if code and name == "phase" and machine_kind() != MADE_ON:
        # It starts from random weights, which another processor rounds otherwise: refused by name, and left as it is.
        assert "begun with another weights" in printed.err
    else:
        assert code == 0
        assert said in printed.out
    after = load_file(file)
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], before[key]) for key in before)


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_what_the_uninterrupted_one_became(here):
    """To the bit on the kind of machine that made them; elsewhere as close as 8 steps of other rounding leave it."""
    shutil.copytree("runs/stopped", "runs/resumed")
    words = [word for word in command_of(here / "runs/stopped") if not word.startswith("run.dir")]
    assert main([*words, "run.dir=runs/resumed"]) == 0
    found, expected = (load_file(f"runs/{name}/checkpoint/backbone.safetensors") for name in ("resumed", "whole"))
    ours, theirs = (rows_of(Path("runs") / name, "loss") for name in ("resumed", "whole"))
    assert found.keys() == expected.keys()
    assert ours == pytest.approx(theirs, rel=1e-3)
    for key, tensor in expected.items():
        if machine_kind() == MADE_ON:
            assert torch.equal(found[key], tensor), key
        assert (found[key] - tensor).norm() < 0.05 * tensor.norm().clamp(min=1e-3), key


def test_evaluate_repeats_the_numbers_of_an_old_fine_tuning(here, tmp_path):
    words = ["data.root=data", "hardware=cpu", "hardware.precision=fp32", "hardware.loader_workers=0"]
    assert main(["evaluate", "checkpoint=runs/phase", *words, f"out={tmp_path / 'out'}"]) == 0
    before, again = (json.loads((run / "results.json").read_text()) for run in (here / "runs/phase", tmp_path / "out"))
    for key in ("task", "dataset", "split", "part", "leakage"):
        assert again[key] == before[key], key
    assert again["settings"].items() >= before["settings"].items(), "later ones may be beside them"
    name_of = itemgetter("protocol", "name")
    assert [name_of(score) for score in again["scores"]] == [name_of(score) for score in before["scores"]]
    if machine_kind() == MADE_ON:
        assert (again["scores"], again["classes"]) == (before["scores"], before["classes"])
    # One operation of 24 frames: another processor's rounding may turn one of them.
    assert again["headline"]["value"] == pytest.approx(before["headline"]["value"], abs=0.05)
