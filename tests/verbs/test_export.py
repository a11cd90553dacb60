"""A run of `finetune` as a program of another library: what the run itself predicts, or nothing is there."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import yaml
from PIL import Image

from surgdino.cli.main import main
from tests.tasks.sets import SETS, words_of

FORMATS = ["torch_export", "onnx", "monai"]
VARIANTS = {
    "phase": ["task.temporal=transformer_offline", "task.align=true", "task.post=mean_offline"],
    "triplet": ["task.head=query", "task.frames=3"],
    "segmentation": ["task.window=32", "task.classes=exclusive", "task.head=queries"],
    "instances": ["task.head=queries", "backbone=full", "train.steps=4"],
    "tools": ["backbone=full", "task.tokens=attentive", "train.steps=4"],
}
REFUSED = {(task, "monai"): "format=onnx" for task in ("instances", "instances+", "vqa", "triplet+")}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(runs, sets, tmp_path_factory):
    """`task` is the usual run, `task+` the one of other settings."""
    made = {}

    def run(name: str):
        task = name.rstrip("+")
        if name == task:
            return runs[task]
        if name not in made:
            made[name] = tmp_path_factory.mktemp(f"{task}-other") / "run"
            assert main(words_of(task, sets[task], made[name], *VARIANTS[task])) == 0
        return made[name]

    return run


@pytest.mark.parametrize("target", FORMATS)
@pytest.mark.parametrize("task", [*sorted(SETS), *(f"{task}+" for task in VARIANTS)])
def test_a_task_with_its_head_or_a_reason(trained, tmp_path, capsys, task, target):
    pytest.importorskip("onnxruntime")
    run = trained(task)
    code = main(["export", str(run), f"format={target}", f"out={tmp_path / 'out'}"])
    printed = capsys.readouterr()
    if why := REFUSED.get((task, target)):
        assert code == 2
        assert why in printed.err
        assert list(tmp_path.iterdir()) == []
        return
    assert code == 0, printed.err
    assert "the run's own predictions within" in printed.out
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    card = (tmp_path / "out" / "README.md").read_text()
    results = json.loads((run / "results.json").read_text())
    for row in results["scores"]:
        assert f"| {row['name']} | {row['protocol']} |" in card
    assert f"Tested on {results['operations']} operations" in card
    assert results["leakage"]["stamp"] is None or results["leakage"]["stamp"] in card
    assert yaml.safe_load(card.split("---")[1])["pipeline_tag"].startswith(("image-", "object-"))


def test_class_names_go_with_the_file(runs, tmp_path):
    onnx = pytest.importorskip("onnx")
    assert main(["export", str(runs["tools"]), "format=onnx", f"out={tmp_path / 'out'}"]) == 0
    [file] = (tmp_path / "out").glob("*.onnx")
    said = {each.key: each.value for each in onnx.load(file).metadata_props}
    classes = json.loads((runs["tools"] / "checkpoint" / "task.json").read_text())["classes"]
    assert json.loads(said["classes.probabilities"]) == classes
    assert said["task"] == "tools"


def test_questions_go_with_the_file_and_the_card_names_them(runs, tmp_path):
    onnx = pytest.importorskip("onnx")
    assert main(["export", str(runs["vqa"]), "format=onnx", f"out={tmp_path / 'out'}"]) == 0
    said = {each.key: each.value for each in onnx.load(tmp_path / "out" / "model.onnx").metadata_props}
    learned = json.loads((runs["vqa"] / "checkpoint" / "task.json").read_text())["settings"]["learned"]["templates"]
    assert json.loads(said["questions"]) == [each["question"] for each in learned]
    assert learned[0]["question"] in (tmp_path / "out" / "README.md").read_text()


def test_a_format_of_backbones_leaves_the_head_out(runs, tmp_path, capsys):
    assert main(["export", str(runs["tools"]), "format=timm", f"out={tmp_path / 'out'}"]) == 0
    assert "the head of the task is left out" in capsys.readouterr().out
    assert main(["export", str(runs["vqa"]), "format=torch_export", "head=false", f"out={tmp_path / 'b'}"]) == 0
    assert (tmp_path / "b" / "backbone.pt2").is_file()


@pytest.mark.parametrize("task", ["segmentation", "segmentation+", "phase"])
def test_a_bundle_runs_under_monai_alone_and_says_what_the_run_says(trained, tmp_path, task):
    pytest.importorskip("fire")
    pictures, drawn = tmp_path / "pictures", np.random.default_rng(1)
    pictures.mkdir()
    for k in range(3):
        small = Image.fromarray(drawn.integers(20, 256, (6, 8, 3), np.uint8))
        small.resize((128, 96), Image.Resampling.BICUBIC).save(pictures / f"{k:06d}.png")
    run, bundle = trained(task), tmp_path / "bundle"
    assert main(["export", str(run), "format=monai", f"out={bundle}"]) == 0
    words = ["--config_file", "configs/inference.json", "--dataset_dir", str(pictures)]
    guard = "import sys; sys.modules['surgdino'] = None; from monai.bundle.__main__ import *"
    code = f"{guard}; import fire; from monai.bundle import run; sys.argv[0] = 'bundle'; fire.Fire(run)"
    done = subprocess.run([sys.executable, "-P", "-c", code, *words], cwd=bundle, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    own = ["predict", str(pictures), f"checkpoint={run}", f"out={tmp_path / 'own'}", "image_fps=1"]
    assert main([*own, "hardware.precision=fp32"]) == 0
    if task == "phase":
        ours = np.loadtxt(tmp_path / "own" / "pictures.csv", delimiter=",", skiprows=1, dtype=str)[:, -7:]
        theirs = np.loadtxt(bundle / "eval" / "probabilities.csv", delimiter=",", skiprows=1, dtype=str)[:, 1:]
        assert np.abs(ours.astype(float) - theirs.astype(float)).max() < 0.1  # ours are of JPEG
        return
    for k in range(3):
        [ours] = (tmp_path / "own" / "masks").rglob(f"{k:06d}.png")
        [theirs] = (bundle / "eval").glob(f"{k:06d}_*.png")
        same = (np.asarray(Image.open(ours)) > 0) == (np.asarray(Image.open(theirs)) > 0)
        assert same.mean() > 0.97
