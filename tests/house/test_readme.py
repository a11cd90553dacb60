"""The README begins as it should, and its plan for one's own videos works as it is written."""

from __future__ import annotations

import json
import re
import shlex

import pytest
from safetensors.torch import save_file

from surgdino.backbone.vit import build_backbone
from surgdino.cli.main import main
from surgdino.config import shipped_settings
from surgdino.datasets.synthetic.cholec80 import write_cholec80
from tests import ROOT


def test_the_readme_opens_with_its_two_commands():
    head = (ROOT / "README.md").read_text().splitlines()[:6]
    assert any("`make demo`" in line for line in head)
    assert any("`make test`" in line for line in head)
    targets = (ROOT / "Makefile").read_text()
    assert "\ndemo:" in targets
    assert "\ntest:" in targets


# The plan for videos of one's own, as its user would type it

_SMALL = ("data.fps=2", "data.short_side=64", "data.workers=1", "hardware.loader_workers=0", "train.batch_size=8")
_MORE = {
    "verify": (),
    "pretrain": (*_SMALL, "train.steps=2", "recipe=demo", "crops.local_count=2", "method.head_hidden=64"),
    "finetune": (*_SMALL, "train.steps=4", "image_size=32", "task.temporal=none"),
    "evaluate": (),
    "report": (),
}
_HERE = {
    "/data/our-videos": "our-videos",
    "/weights/vit_base.safetensors": "toy.safetensors",
    "vit_base_patch16": "vit_toy",
}


def own_videos() -> list[list[str]]:
    """The README's commands for one's own videos, for a small model."""
    text = (ROOT / "README.md").read_text().partition("**Your own videos**")[2]
    block = re.search(r"```sh\n(.*?)```", text, re.DOTALL)[1]
    for there, here in _HERE.items():
        block = block.replace(there, here)
    found = [shlex.split(line)[1:] for line in block.splitlines() if line.startswith("surgdino ")]
    return [[*words, *_MORE[words[0]]] for words in found]


@pytest.mark.slow
def test_the_plan_for_ones_own_videos_works_as_it_is_written(tmp_path, monkeypatch, capsys):
    write_cholec80(tmp_path / "made", videos=6, seconds=8, size=(96, 64))
    (tmp_path / "our-videos").mkdir()
    rows = ["video,start,label"]
    for number in range(1, 7):
        (tmp_path / f"made/videos/video{number:02d}.mp4").rename(tmp_path / f"our-videos/OP{number}.mp4")
        rows += [f"OP{number},0,access", f"OP{number},4,closure"]
    (tmp_path / "our-videos/labels.csv").write_text("\n".join(rows) + "\n")
    save_file(build_backbone(shipped_settings("model", "vit_toy")).vit.state_dict(), str(tmp_path / "toy.safetensors"))
    monkeypatch.chdir(tmp_path)
    commands = own_videos()
    assert [words[0] for words in commands] == ["verify", "pretrain", "finetune", "evaluate", "report"]
    for words in commands:
        assert main(words) == 0, f"surgdino {shlex.join(words)}: {capsys.readouterr().err}"
    results = json.loads((tmp_path / "runs/phases/results.json").read_text())
    assert results["leakage"]["tested_operations"] == 2
    assert results["leakage"]["seen_operations"] == {}
    # Everything was typed with relative paths; a run is complete from any other folder too.
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for words in (["report", "../runs/ours", "report.frames=true"], ["evaluate", "checkpoint=../runs/phases"]):
        assert main(words) == 0, f"surgdino {shlex.join(words)}: {capsys.readouterr().err}"
    assert "data:image" in (tmp_path / "runs/ours/report.html").read_text()
    assert not any((tmp_path / "elsewhere").iterdir())
