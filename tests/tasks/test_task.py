"""A task is one class: a toy in one file of the user's own goes through every verb; every task has its settings."""

from __future__ import annotations

import csv
import json
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
from tests.tutorials.page import written


@pytest.fixture
def toy(tmp_path, monkeypatch) -> Path:
    """The tutorial's extension, which has a task: a file and its YAML."""
    for file, text in written(ROOT / "docs" / "tutorials" / "extending.md").items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
    monkeypatch.setenv("SURGDINO_EXTENSIONS", str(tmp_path / "ours"))
    monkeypatch.setattr(surgdino.tasks, "__path__", list(surgdino.tasks.__path__))
    yield tmp_path
    sys.modules.pop("surgdino.tasks.by_frame", None)


@pytest.mark.slow
def test_a_task_in_one_file_goes_through_every_verb(toy, capsys):
    root, run = toy / "data", toy / "run"
    set_of("by_frame").write(root)
    assert main(words_of("by_frame", root, run, "task.temperature=2.0")) == 0
    results = json.loads((run / "results.json").read_text())
    assert results["headline"]["protocol"] == "by_frame/video-macro"
    assert results["settings"] == {"name": "by_frame", "temperature": 2.0}
    assert (run / "report.html").is_file()
    assert main(["evaluate", f"checkpoint={run}", "hardware.loader_workers=0"]) == 0
    assert "reproduced: all values equal" in capsys.readouterr().out
    video = next((root / "videos").glob("*4.mp4"))
    assert main(["predict", str(video), f"checkpoint={run}", "hardware.loader_workers=0", f"out={toy / 'out'}"]) == 0
    assert (toy / "out" / "video04.csv").read_bytes() == (run / "predictions" / "video04.csv").read_bytes()
    with (toy / "out" / "video04.csv").open() as file:
        for row in csv.DictReader(file):
            assert sum(float(value) for name, value in row.items() if name != "frame") == pytest.approx(1, abs=1e-5)
    assert main(["report", str(run)]) == 0
    (toy / "x.txt").write_text("0\t1\n")
    assert main(["predict", str(video), f"checkpoint={run}", f"truth={toy / 'x.txt'}"]) == 2
    assert "task=by_frame does not take truth=" in capsys.readouterr().err


def test_what_a_task_lacks_is_told(toy):
    with pytest.raises(SurgdinoError, match="not scored from files"):
        open_scoring("by_frame").score_folders(shipped(Folders, "score", truth="a", predictions="b"))
    with pytest.raises(SurgdinoError, match=r"there is no task=by_fram\. Did you mean 'by_frame'"):
        open_task({"name": "by_fram"})
    with pytest.raises(SurgdinoError, match=r"unknown setting task\.temprature.*'task\.temperature'"):
        open_task({"name": "by_frame", "temprature": 1.0})
