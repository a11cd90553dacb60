"""A task is one class: a toy in one file of the user's own goes through every verb; every task has its settings."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path

import pytest

import surgdino.tasks
from surgdino.cli.main import main
from surgdino.config import shipped
from surgdino.errors import SurgdinoError
from surgdino.tasks.scoring.folders import Folders
from surgdino.tasks.scoring.scoring import open_scoring
from surgdino.tasks.task import open_task
from tests import ROOT
from tests.tasks.sets import set_of, words_of


@pytest.fixture
def toy(tmp_path, monkeypatch) -> Path:
    """An extension with one task: a file and its YAML."""
    for folder in ("tasks", "configs/task"):
        (tmp_path / "own" / folder).mkdir(parents=True)
    shutil.copy(ROOT / "tests" / "tasks" / "toy_task.py", tmp_path / "own" / "tasks" / "toy.py")
    (tmp_path / "own" / "configs" / "task" / "toy.yaml").write_text("# A toy.\nname: toy\ntemperature: 1.0\n")
    monkeypatch.setenv("SURGDINO_EXTENSIONS", str(tmp_path / "own"))
    monkeypatch.setattr(surgdino.tasks, "__path__", list(surgdino.tasks.__path__))
    yield tmp_path
    sys.modules.pop("surgdino.tasks.toy", None)


@pytest.mark.slow
def test_a_task_in_one_file_goes_through_every_verb(toy, capsys):
    root, run = toy / "data", toy / "run"
    set_of("toy").write(root)
    assert main(words_of("toy", root, run, "task.temperature=2.0")) == 0
    results = json.loads((run / "results.json").read_text())
    assert results["headline"]["protocol"] == "toy/video-macro"
    assert results["settings"] == {"name": "toy", "temperature": 2.0}
    assert (run / "report.html").is_file()
    assert main(["evaluate", f"checkpoint={run}", "hardware.loader_workers=0"]) == 0
    assert "all numbers are those of" in capsys.readouterr().out
    video = next((root / "videos").glob("*4.mp4"))
    assert main(["predict", str(video), f"checkpoint={run}", "hardware.loader_workers=0", f"out={toy / 'out'}"]) == 0
    assert (toy / "out" / "video04.csv").read_bytes() == (run / "predictions" / "video04.csv").read_bytes()
    with (toy / "out" / "video04.csv").open() as file:
        for row in csv.DictReader(file):
            assert sum(float(value) for name, value in row.items() if name != "frame") == pytest.approx(1, abs=1e-5)
    assert main(["report", str(run)]) == 0
    assert main(["predict", str(video), f"checkpoint={run}", "truth=x.txt"]) == 2
    assert "task=toy does not take truth=" in capsys.readouterr().err


def test_what_a_task_lacks_is_told(toy):
    with pytest.raises(SurgdinoError, match="not scored from files"):
        open_scoring("toy").score_folders(shipped(Folders, "score", truth="a", predictions="b"))
    with pytest.raises(SurgdinoError, match=r"there is no task=toyy\. Did you mean 'toy'"):
        open_task({"name": "toyy"})
    with pytest.raises(SurgdinoError, match=r"unknown setting task\.temprature.*'task\.temperature'"):
        open_task({"name": "toy", "temprature": 1.0})
