"""`backbones=[natural:FILE, RUN, CHECKPOINT]`: each opened, named apart, and refused in one line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from surgdino.backbone.checkpoint import save_backbone
from surgdino.backbone.vit import build_backbone
from surgdino.config import shipped_settings
from surgdino.errors import SurgdinoError
from surgdino.inputs.backbones import open_backbones, short_names
from surgdino.runs.history import History


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> Path:
    """`toy.safetensors` as it came, and `runs/a`, `runs/b` as a run leaves them."""
    folder = tmp_path_factory.mktemp("backbones")
    torch.manual_seed(0)
    backbone = build_backbone(shipped_settings("model", "vit_toy"))
    save_file(backbone.vit.state_dict(), folder / "toy.safetensors")
    facts = {"dataset": "folder", "steps": 5, "operations": ["folder/x"], "image_size": 16}
    for run in ("a", "b"):
        save_backbone(folder / "runs" / run / "checkpoint", backbone, facts)
    shutil.copytree(folder / "runs/a/checkpoint", folder / "runs/a/best")
    return folder


def test_a_file_and_runs_are_opened_with_their_past(places, capsys):
    natural, run = open_backbones([f"natural:{places / 'toy.safetensors'}", str(places / "runs/a")])
    assert [(each.name, each.natural) for each in (natural, run)] == [("toy", True), ("a", False)]
    assert natural.start.model.name == run.start.model.name == "vit_toy"
    assert [each.start.image_size for each in (natural, run)] == [32, 16]  # its own, and the run's
    assert History.of(natural.start.info).unknown
    assert History.of(run.start.info).operations("trained on") == ["folder/x"]
    assert "a: folder, vit_toy, 5 steps" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("written", "names"),
    [
        (["runs/a", "runs/b/checkpoint"], ["a", "b"]),
        (["here/a", "there/a"], ["here/a", "there/a"]),
        (["runs/a/checkpoint", "runs/a/best"], ["checkpoint", "best"]),
        (["x/backbone.safetensors", "vit.v1.safetensors"], ["x", "vit.v1"]),
        (["checkpoint"], [None]),
    ],
)
def test_names_are_as_long_as_it_takes(written, names):
    found = short_names([Path(text) for text in written])
    assert found == [name or Path.cwd().name for name in names]


@pytest.mark.parametrize(
    ("items", "said"),
    [
        (["natural:{}/nowhere.safetensors"], "nowhere.safetensors"),
        (["{}/nowhere"], "does not exist"),
        (["natural:"], "names no file"),
        ([""], "names no file"),
        (["{}/toy.safetensors"], "Write natural:"),
        (["natural:{}/junk.safetensors"], "junk.safetensors"),
        pytest.param(["natural:{}/other.safetensors"], "fits no model", marks=pytest.mark.slow),
        (["{}/runs"], "no checkpoint here"),
        (["{}/runs/a", "{}/runs/../runs/a"], "the same backbone twice"),
        (["{}/runs/a", "{}/runs/a/checkpoint"], "the same backbone twice"),
    ],
)
def test_what_cannot_be_opened_is_one_line(places, items, said):
    (places / "junk.safetensors").write_bytes(b"junk")
    save_file({"patch_embed.proj.weight": torch.zeros(3, 3, 2, 2)}, places / "other.safetensors")
    with pytest.raises(SurgdinoError) as caught:
        open_backbones([item.format(places) for item in items])
    assert said in caught.value.line()
