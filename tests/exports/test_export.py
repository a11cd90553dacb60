"""An export gives the checkpoint's features to the other program alone, or is not there; its card names no hospital."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch
import yaml

from surgdino import discovery
from surgdino.backbone.checkpoint import save_backbone
from surgdino.backbone.vit import build_backbone
from surgdino.cli.main import main
from surgdino.errors import SurgdinoError
from surgdino.exports.format import PACKAGE, Format, open_format
from tests.engine.test_training import TOY

NAMES = discovery.names(PACKAGE)
FACTS = {
    "operations": ["camma/5", "own/OP7~1f0c9a3e", "op-3fa2b1"],
    "datasets": [{"name": "cholec80", "operations": ["camma/5"]}],
    "dataset_licence": "CC BY-NC-SA 4.0",
    "method": {"name": "simdinov2"},
    "steps": 400,
    "batch_size": 32,
    "seed": 0,
    "initial_weights": {"known_as": "dinov2_vits14", "licence": "Apache-2.0"},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("exports") / "run"
    save_backbone(folder / "checkpoint", build_backbone(TOY, drop_path=0.0).eval(), FACTS)
    return folder


def available(name: str) -> None:
    for package in discovery.defined(discovery.load(PACKAGE, name, "format"), Format).NEEDS:
        pytest.importorskip(package)


@pytest.mark.quick("timm")
@pytest.mark.parametrize("name", NAMES)
def test_the_other_program_gives_the_same_features(run, tmp_path, capsys, name):
    available(name)
    assert main(["export", str(run), f"format={name}", f"out={tmp_path / 'out'}"]) == 0
    assert "the same features within" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    card = (tmp_path / "out" / "README.md").read_text()
    head = yaml.safe_load(card.split("---")[1])
    assert head["library_name"] == open_format(name).LIBRARY
    assert "3 operations: 1 public (camma/5) and 2 of its makers' own" in card
    assert "OP7" not in card
    for word in (
        "dinov2_vits14",
        "Apache-2.0",
        "CC BY-NC-SA 4.0",
        "simdinov2, 400 steps of 32 images",
        "None were measured",
    ):
        assert word in card


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_what_the_card_says_runs_without_surgdino(run, tmp_path, name):
    available(name)
    assert main(["export", str(run), f"format={name}", f"out={tmp_path / 'out'}"]) == 0
    use = (tmp_path / "out" / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
    make = "torch.zeros(2, 3, 32, 32)" + (".numpy()" if name == "onnx" else "")
    if (
        name in ("timm", "hf")
        and subprocess.run([sys.executable, "-P", "-c", "import timm"], capture_output=True).returncode
    ):
        pytest.skip("a plain import of timm fails here: torchvision is not of this torch (surgdino doctor)")
    code = f"import sys, torch\nimages = {make}\n{use}\nassert not any(m.startswith('surgdino') for m in sys.modules)"
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_other_features_are_not_written(run, tmp_path, capsys, monkeypatch):
    kind = type(open_format("timm"))
    read = kind.read

    def wrong(*words):
        return {name: lambda images, program=program: program(images * 1.01) for name, program in read(*words).items()}

    monkeypatch.setattr(kind, "read", wrong)
    assert main(["export", str(run), "format=timm", f"out={tmp_path / 'out'}"]) == 2
    assert "does not give what the checkpoint gives, so nothing was written" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["format=tim", "out={}/o"], "Did you mean 'timm'"),
        (["format=timm", "out={}/full"], "there is something already"),
        (["format=timm"], "out"),
        (["{}/full", "format=timm", "out={}/o"], "export takes one run; found 2 paths"),
    ],
)
def test_what_cannot_be_is_one_line(run, tmp_path, capsys, words, told):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "kept").touch()
    assert main(["export", str(run), *(word.format(tmp_path) for word in words)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert told in line
    assert (tmp_path / "full" / "kept").exists()


def test_a_package_that_is_not_there_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr(discovery, "find_spec", lambda name: None if name.startswith("onnx") else find_spec(name))
    told = r"^format=onnx needs packages that are not installed; found no .*onnxruntime.*pip install 'surgdino\[onnx\]'"
    with pytest.raises(SurgdinoError, match=told):
        open_format("onnx")
