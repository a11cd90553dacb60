"""A method of the user's own, that of the tutorial, is trained, resumed, probed and reported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from surgdino import discovery
from surgdino.cli.main import main
from surgdino.engine.method import open_method
from tests import ROOT
from tests.tutorials.page import written

PAGE = written(ROOT / "docs" / "tutorials" / "extending.md")


@pytest.fixture(scope="module")
def extension(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("extension")
    for file in ("methods/agree.py", "configs/method/agree.yaml"):
        (folder / file).parent.mkdir(parents=True)
        (folder / file).write_text(PAGE[f"ours/{file}"])
    return folder


@pytest.mark.slow
def test_a_method_in_one_file_goes_the_whole_way(extension, synthetic_cholec80, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SURGDINO_EXTENSIONS", str(extension))
    assert "agree" in discovery.names("surgdino.engine.methods")
    kind, settings = open_method({"name": "agree", "width": 4, "momentum": 0.5, "momentum_end": 1.0})
    assert (kind.__name__, settings.momentum) == ("Agree", 0.5)
    run = tmp_path / "run"
    words = ["pretrain", "dataset=cholec80", "model=vit_toy", "method=agree", f"data.root={synthetic_cholec80}"]
    words += [f"run.dir={run}", "data.short_side=96", "crops.global_size=32", "crops.local_size=16"]
    words += [f"data.store={tmp_path / 'store'}", "data.fps=2", "crops.local_count=2", "hardware.loader_workers=0"]
    words += ["train.batch_size=8", "train.log_every=2", "probe.every=2", "probe.frames=16"]
    assert main([*words, "train.steps=2"]) == 0
    assert main([*words, "train.steps=4"]) == 0, "resumed"
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 4]
    assert [row["step"] for row in rows if "probe_score" in row] == [0, 2, 4]
    assert json.loads((run / "checkpoint" / "model.json").read_text())["method"]["name"] == "agree"
    assert main(["report", str(run)]) == 0
    assert (run / "report.html").is_file()
