"""`surgdino pretrain` as its user runs it: what it leaves behind, how it continues, what bad input gets."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import surgdino
from surgdino.backbone.timm_import import timm
from surgdino.backbone.vit import build_backbone
from surgdino.cli.main import main
from surgdino.config import shipped_settings
from tests import ROOT

SMALL = (
    "train.batch_size=8",
    "data.fps=2",
    "crops.local_count=2",
    "method.head_hidden=64",
    "hardware.loader_workers=0",
)


def pretrain(root: Path, run: Path, *more: str) -> int:
    words = ["pretrain", "recipe=demo", f"data.root={root}", f"data.store={run.parent / 'store'}", f"run.dir={run}"]
    return main([*words, *SMALL, *more])


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    torch.manual_seed(1)
    file = tmp_path_factory.mktemp("weights") / "vit_toy.safetensors"
    save_file(build_backbone(shipped_settings("model", "vit_toy")).vit.state_dict(), str(file))
    return file


@pytest.fixture(scope="module")
def finished(synthetic_cholec80, weights, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("pretrain") / "run"
    words = ("train.steps=6", "train.log_every=2", f"model.weights={weights}")
    assert pretrain(synthetic_cholec80, run, *words) == 0
    return run


def test_a_run_folder_holds_what_the_readme_promises(finished):
    for name in ("config.yaml", "environment.json", "metrics.jsonl", "curves.png", "state", "tensorboard"):
        assert (finished / name).exists(), name
    info = json.loads((finished / "checkpoint" / "model.json").read_text())
    assert info["operations"] == ["camma/1", "camma/2", "camma/3", "camma/4"]
    assert info["steps"] == 6
    environment = json.loads((finished / "environment.json").read_text())
    assert environment["data_hash"] == info["data_hash"]
    assert environment["packages"]["timm"] == timm.__version__
    rows = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 4, 6]


def test_the_backbone_differs_from_what_went_in_and_loads_strictly_into_plain_timm(finished, weights):
    info = json.loads((finished / "checkpoint" / "model.json").read_text())
    after = load_file(finished / "checkpoint" / "backbone.safetensors")
    before = load_file(weights)
    assert after.keys() == before.keys()
    assert any(not torch.equal(after[key], before[key]) for key in after)
    plain = timm.create_model(info["timm"], num_classes=0, **info["timm_kwargs"])
    plain.load_state_dict(after, strict=True)
    ours = surgdino.load(finished)
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(ours(images).cls, plain.eval()(images), atol=1e-5)


@pytest.mark.slow
def test_the_same_command_again_says_that_it_is_finished(finished, synthetic_cholec80, weights, capsys):
    before = (finished / "checkpoint" / "backbone.safetensors").read_bytes()
    words = ("train.steps=6", "train.log_every=2", f"model.weights={weights}")
    assert pretrain(synthetic_cholec80, finished, *words) == 0
    assert "This run is finished" in capsys.readouterr().out
    assert (finished / "checkpoint" / "backbone.safetensors").read_bytes() == before


def test_other_settings_in_the_same_folder_are_refused_by_name(finished, synthetic_cholec80, weights, capsys):
    assert pretrain(synthetic_cholec80, finished, "train.steps=6", "train.lr=0.5", f"model.weights={weights}") == 2
    told = capsys.readouterr().err
    assert "train.lr was 0.001, is 0.5" in told
    assert told.count("\n") == 1


@pytest.mark.slow
def test_micro_batches_may_change_when_a_run_goes_on(finished, synthetic_cholec80, weights, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    words = ("train.log_every=2", f"model.weights={weights}")
    assert pretrain(synthetic_cholec80, run, *words, "train.steps=8", "train.accumulate=2") == 0
    assert json.loads((run / "checkpoint" / "model.json").read_text())["steps"] == 8


PHASES = "phases=[{steps: 2}, {steps: 2, crops.global_size: 48, crops.local_size: 24, train.batch_size: 4}]"


@pytest.fixture(scope="module")
def phased(synthetic_cholec80, weights, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("phases") / "run"
    assert (
        pretrain(synthetic_cholec80, run, PHASES, f"model.weights={weights}", "probe.every=2", "probe.frames=16") == 0
    )
    return run


@pytest.mark.slow
def test_a_run_in_phases_ships_the_larger_grid_and_its_report_shows_them(phased, synthetic_cholec80, weights, capsys):
    info = json.loads((phased / "checkpoint" / "model.json").read_text())
    assert info["timm_kwargs"]["img_size"] == info["image_size"] == 48
    assert [each["steps"] for each in info["phases"]] == [2, 2]
    vit = timm.create_model(info["timm"], num_classes=0, **info["timm_kwargs"])
    vit.load_state_dict(load_file(phased / "checkpoint" / "backbone.safetensors"), strict=True)
    page = (phased / "report.html").read_text()
    assert "Phases of the run" in page
    assert "steps: 2, crops.global_size: 48" in page
    assert surgdino.load(phased)(torch.rand(1, 3, 48, 48)).patches.shape == (1, 36, 64)
    more = PHASES.replace("[{steps: 2},", "[{steps: 2, train.lr: 0.1},")
    assert (
        pretrain(synthetic_cholec80, phased, more, f"model.weights={weights}", "probe.every=2", "probe.frames=16") == 2
    )
    told = capsys.readouterr().err
    assert "train.lr" in told
    assert told.strip().count("\n") == 0


@pytest.mark.slow
def test_what_a_run_in_phases_ships_is_merged_and_fine_tuned_at_its_size(phased, synthetic_cholec80, weights, tmp_path):
    assert main(["merge", str(weights), str(phased), f"out={tmp_path / 'merged'}", "hardware.device=cpu"]) == 0
    assert surgdino.load(tmp_path / "merged").backbone.grid == (6, 6)
    data = ["dataset=cholec80", f"data.root={synthetic_cholec80}", f"data.store={tmp_path / 'store'}", "data.fps=1"]
    words = [*data, "data.split={train: [1, 2], test: [3]}", "task=phase", f"checkpoint={phased}", "hardware=cpu"]
    small = [
        "leakage=allow",
        "hardware.loader_workers=0",
        "task.temporal=none",
        "train.steps=2",
        f"run.dir={tmp_path / 'tuned'}",
    ]
    assert main(["finetune", *words, *small]) == 0
    assert json.loads((tmp_path / "tuned" / "checkpoint" / "model.json").read_text())["image_size"] == 48


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("phases=[]", "phases is empty"),
        ("phases=3", "phases cannot be used"),
        ("phases=[3]", "phases[0] cannot be used"),
        ("phases=[{steps: 2, crops.global_size: 33}]", "a multiple of the patch size 8, found 33"),
        ("phases=[{steps: 2, crops.globalsize: 32}]", "Did you mean 'crops.global_size'"),
        ("phases=[{steps: 2, model: vit_tiny_patch16}]", "a phase cannot change model"),
        ("phases=[{steps: 2}, {steps: 3}]", "expected train.steps=6 in all, found 5"),
    ],
)
def test_phases_that_cannot_be_are_one_line_before_any_work(synthetic_cholec80, tmp_path, capsys, word, said):
    assert pretrain(synthetic_cholec80, tmp_path / "run", word, "train.steps=6") == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1
    assert not (tmp_path / "store").exists()


@pytest.mark.slow
def test_one_bad_video_among_many_is_set_aside_by_name(synthetic_cholec80, tmp_path, capsys):
    root = tmp_path / "Ordner mit Umläuten (März)"
    shutil.copytree(synthetic_cholec80, root)
    (root / "videos" / "video05.mp4").write_bytes(b"")
    assert pretrain(root, tmp_path / "run", "train.steps=2", "probe.every=0") == 0
    said = capsys.readouterr().out
    assert "set aside video05" in said
    assert "4 videos" in said
    info = json.loads((tmp_path / "run" / "checkpoint" / "model.json").read_text())
    assert "camma/5" not in info["operations"]


@pytest.mark.slow
def test_more_bad_videos_than_allowed_stop_before_training(synthetic_cholec80, tmp_path, capsys):
    root = tmp_path / "set"
    shutil.copytree(synthetic_cholec80, root)
    assert pretrain(root, tmp_path / "good", "train.steps=2", "probe.every=0") == 0
    for number in ("02", "03", "04"):
        (root / "videos" / f"video{number}.mp4").write_text("this is no video")
    assert pretrain(root, tmp_path / "run", "train.steps=2") == 2
    told = capsys.readouterr().err.splitlines()
    assert "too many videos are bad" in told[-1]
    assert sum(line.startswith("surgdino:") for line in told) == 1
    assert not (tmp_path / "run" / "checkpoint").exists()
    assert list((tmp_path / "store").rglob("video01.zip")), "what was built before is kept"


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "does not exist"), (b"", "safetensors"), (b"garbage" * 100, "safetensors")],
    ids=["missing", "empty", "garbage"],
)
def test_a_wrong_weights_file_is_one_line_before_any_work(synthetic_cholec80, tmp_path, capsys, content, said):
    file = tmp_path / "my weights.safetensors"
    if content is not None:
        file.write_bytes(content)
    assert pretrain(synthetic_cholec80, tmp_path / "run", "train.steps=2", f"model.weights={file}") == 2
    told = capsys.readouterr().err
    assert "my weights.safetensors" in told
    assert said in told
    assert told.count("\n") == 1
    assert not (tmp_path / "store").exists()


@pytest.mark.slow
def test_weights_of_another_architecture_name_the_keys_that_differ(synthetic_cholec80, weights, tmp_path, capsys):
    words = ("train.steps=2", "model=vit_tiny_patch16", f"model.weights={weights}")
    assert pretrain(synthetic_cholec80, tmp_path / "run", *words) == 2
    told = capsys.readouterr().err
    assert "blocks.0" in told or "cls_token" in told
    assert "model=vit_toy" in told
    assert told.count("\n") == 1


@pytest.mark.slow
def test_an_excluded_video_takes_its_operation_with_it(synthetic_cholec80, tmp_path):
    assert pretrain(synthetic_cholec80, tmp_path / "run", "train.steps=2", "exclude=video02") == 0
    info = json.loads((tmp_path / "run" / "checkpoint" / "model.json").read_text())
    assert info["operations"] == ["camma/1", "camma/3", "camma/4"]


@pytest.mark.slow
def test_what_the_initial_weights_had_seen_is_remembered(finished, synthetic_cholec80, tmp_path):
    words = ("train.steps=2", "data.exclude=[video01,video02]", f"model.weights={finished / 'checkpoint'}")
    assert pretrain(synthetic_cholec80, tmp_path / "run", *words) == 0
    info = json.loads((tmp_path / "run" / "checkpoint" / "model.json").read_text())
    assert info["operations"] == ["camma/1", "camma/2", "camma/3", "camma/4"]


@pytest.mark.slow
def test_what_the_teachers_had_seen_the_student_has_seen(finished, synthetic_cholec80, tmp_path, capsys):
    words = ["pretrain", "dataset=cholec80", "model=vit_toy", f"data.root={synthetic_cholec80}", *SMALL[:3], SMALL[4]]
    words += [f"data.store={tmp_path / 'store'}", f"run.dir={tmp_path / 'run'}", "data.short_side=96", "train.steps=2"]
    words += ["crops.global_size=32", "crops.local_size=16", "data.exclude=[video01,video02]"]
    assert main([*words, "method=distill"]) == 2
    assert "method.teachers=" in capsys.readouterr().err
    assert main([*words, "method=distill", f"method.teachers={finished}"]) == 0
    info = json.loads((tmp_path / "run" / "checkpoint" / "model.json").read_text())
    assert info["operations"] == ["camma/1", "camma/2", "camma/3", "camma/4"]
    [teacher] = info["teachers"]
    assert teacher["operations"] == info["operations"]
    assert info["method"]["teachers"] == [f"sha256:{teacher['sha256']}"]
    assert str(finished) not in (tmp_path / "run" / "config.yaml").read_text()


@pytest.mark.slow
def test_the_demo_goes_all_the_way(tmp_path, capsys):
    assert main(["demo", f"dir={tmp_path / 'demo'}", "videos=2", "seconds=12", "steps=8"]) == 0
    said = capsys.readouterr().out
    assert "the same features" in " ".join(said.split())
    for picture in ("content", "crops", "augment", "run/curves"):
        assert (tmp_path / "demo" / f"{picture}.png").stat().st_size > 10_000
    page = (ROOT / "docs" / "start.md").read_text(encoding="utf-8")
    quoted = re.findall(
        r"^ (\w.*?)  ", "".join(re.findall(r"^```text\n(.*?)^```", page, re.DOTALL | re.MULTILINE)), re.M
    )
    assert len(quoted) > 5
    assert not [words for words in quoted if words not in said]
    files = re.findall(r"`(demo/[\w./]+)`", page)
    assert not [file for file in files if not (tmp_path / file).exists()]


@pytest.mark.slow
@pytest.mark.real
def test_natural_image_weights_continue_on_real_cholec80(real_data, tmp_path):
    words = ["pretrain", "recipe=cholec80", "model=vit_tiny_patch16", f"data.root={real_data / 'cholec80'}"]
    words += [f"model.weights={real_data / 'weights' / 'vit_tiny_patch16_224.safetensors'}", "data.fps=0.5"]
    words += ["crops.global_size=64", "crops.local_size=32", "crops.local_count=2", "train.batch_size=16"]
    words += ["train.steps=12", "train.log_every=3", "train.head_warmup_steps=3", "train.warmup_steps=3"]
    words += ["probe.frames=64", f"data.store={tmp_path / 'store'}", f"run.dir={tmp_path / 'run'}"]
    assert main(words) == 0
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [row for row in rows if "loss" in row]
    assert losses[-1]["loss"] < losses[0]["loss"]
    assert all(row["comp"] < 0.98 and row["expa"] > 0.5 and row["patch"] > -0.49 for row in losses)
    probes = [row for row in rows if "probe_operation_knn" in row]
    assert probes[-1]["probe_operation_knn"] > 2 * probes[-1]["probe_operation_chance"]
