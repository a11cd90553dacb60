"""A method of the user's own, one file and one YAML outside the package, is trained, resumed, probed and reported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from surgdino import discovery
from surgdino.cli.main import main
from surgdino.engine.method import open_method

FILE = '''
"""Agree: student and teacher features of the same image agree."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from surgdino.engine.method import Method, MethodSettings, Targets
from surgdino.engine.methods.parts.views import by_view, teacher_tokens


@dataclass(frozen=True)
class Settings(MethodSettings):
    width: int


@dataclass
class Cls(Targets):
    cls: Tensor


class Agree(Method[Cls]):
    settings: Settings

    def build_head(self, embed_dim):
        return nn.Linear(embed_dim, self.settings.width)

    def targets(self, views, processes, progress):
        tokens = [teacher_tokens(self.backbone, micro).cls for micro in views]
        return [Cls(t, by_view(self.head(t), micro.images)) for t, micro in zip(tokens, views, strict=True)]

    def loss(self, tokens, views, targets, pool):
        cls = by_view(self.head(tokens.cls), views.images)
        loss = 1 - F.cosine_similarity(cls[:2], targets.cls.flip(0), dim=-1).mean()
        return loss, {"loss": loss.detach()}
'''
YAML = "name: agree\nwidth: 16\nmomentum: 0.9\nmomentum_end: 1.0\n"


@pytest.fixture(scope="module")
def extension(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("extension")
    for file, text in (("methods/agree.py", FILE), ("configs/method/agree.yaml", YAML)):
        (folder / file).parent.mkdir(parents=True)
        (folder / file).write_text(text)
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
