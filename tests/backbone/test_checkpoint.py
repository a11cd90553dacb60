"""A checkpoint folder is all that a user needs: it loads ready to use, fits plain timm, and is never half written."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

import surgdino
from surgdino.backbone import checkpoint
from surgdino.backbone.checkpoint import MODEL_JSON, read_model_json, save_backbone, usual_size
from surgdino.backbone.model_json import WEIGHTS
from surgdino.backbone.timm_import import timm
from surgdino.backbone.vit import Backbone, build_backbone
from surgdino.backbone.weights import load_weights
from surgdino.config import shipped_settings
from surgdino.errors import SurgdinoError
from surgdino.paths import share

FACTS = {"method": {"name": "simdinov2"}, "operations": ["camma/1", "klinik süd/7"], "steps": 12}


def toy(seed: int = 0) -> Backbone:
    torch.manual_seed(seed)
    settings = yaml.safe_load((share("configs") / "model" / "vit_toy.yaml").read_text())
    return build_backbone(settings, drop_path=0.1).eval()


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, Backbone]:
    backbone = toy()
    return save_backbone(tmp_path / "run" / "checkpoint", backbone, FACTS), backbone


def test_run_folder_checkpoint_folder_and_file_all_load_the_same_backbone(saved) -> None:
    folder, backbone = saved
    images = torch.randn(2, 3, 32, 32)
    for path in (folder, folder.parent, str(folder), folder / WEIGHTS):
        model = surgdino.load(path)
        assert not model.training
        torch.testing.assert_close(model(images).cls, backbone(images).cls, atol=0, rtol=0)
        assert model.info["operations"] == FACTS["operations"]


def test_it_comes_with_its_preprocessing(saved) -> None:
    model = surgdino.load(saved[0])
    picture = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    features = model(model.preprocess([picture, picture]))
    assert features.cls.shape == (2, 64)
    assert features.patches.shape == (2, 16, 64)
    assert model.preprocess.mean == (0.485, 0.456, 0.406)


def test_the_weights_load_strictly_into_plain_timm(saved) -> None:
    folder, backbone = saved
    info = json.loads((folder / MODEL_JSON).read_text(encoding="utf-8"))
    plain = timm.create_model(info["timm"], num_classes=0, **info["timm_kwargs"]).eval()
    plain.load_state_dict(load_file(folder / WEIGHTS), strict=True)
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(plain(images), backbone(images).cls)


def test_weights_are_float32_whatever_the_training_used(tmp_path: Path) -> None:
    save_backbone(tmp_path, toy().to(torch.bfloat16), FACTS)
    assert {t.dtype for t in load_file(tmp_path / WEIGHTS).values()} == {torch.float32}


def test_training_on_from_a_checkpoint_knows_which_operations_it_has_seen(saved) -> None:
    report = load_weights(toy(seed=1), saved[0].parent)
    assert report.operations == FACTS["operations"]
    assert "operations already seen: 2" in report.line()


def test_a_kill_between_the_two_renames_leaves_a_consistent_checkpoint(saved, monkeypatch) -> None:
    folder, _ = saved
    newer = toy(seed=1)

    def killed(target: Path, text: str):
        assert target.name == MODEL_JSON
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "write_text", killed)
    with pytest.raises(KeyboardInterrupt):
        save_backbone(folder, newer, {**FACTS, "steps": 99})
    model = surgdino.load(folder)
    assert model.info["steps"] == 99, "the header of the weights counts, not the older model.json"
    assert torch.equal(model.backbone.vit.norm.weight, newer.vit.norm.weight)


def test_a_full_disk_keeps_what_was_there_and_is_told(saved, monkeypatch) -> None:
    folder, _ = saved
    before = (folder / WEIGHTS).read_bytes()

    def full(*_, **__) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(SurgdinoError, match="disk is full"):
        save_backbone(folder, toy(seed=1), FACTS)
    assert (folder / WEIGHTS).read_bytes() == before
    assert sorted(p.name for p in folder.iterdir()) == sorted([WEIGHTS, MODEL_JSON]), "no temporary file is left"


def test_the_system_number_of_a_failed_write_is_kept(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r".") as caught:
        checkpoint.save_tensors({"a": torch.zeros(1)}, tmp_path / "no" / "such" / "folder", {})
    assert caught.value.errno in (errno.ENOENT, errno.EIO)


def test_a_fact_that_is_not_json_is_told_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(SurgdinoError, match="not JSON"):
        save_backbone(tmp_path / "c", toy(), {"loss": float("nan")})
    assert not (tmp_path / "c" / WEIGHTS).exists()


def test_weights_without_our_header_need_a_model_json(saved) -> None:
    folder, backbone = saved
    save_file(backbone.vit.state_dict(), folder / WEIGHTS)
    assert surgdino.load(folder).info["steps"] == 12
    (folder / MODEL_JSON).unlink()
    with pytest.raises(SurgdinoError, match=r"expected model\.json beside it"):
        surgdino.load(folder)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:2000]), "damaged"),
        (lambda f: (f / WEIGHTS).write_bytes(b""), "damaged"),
        (lambda f: (f / MODEL_JSON).write_text("{"), "not valid JSON"),
        (lambda f: (f / MODEL_JSON).write_text("[]"), "not what it should hold"),
        (lambda f: (f / WEIGHTS).unlink(), "no checkpoint here"),
    ],
)
def test_a_damaged_checkpoint_is_told_in_one_line_with_its_file(spoil, words: str, saved) -> None:
    folder, _ = saved
    spoil(folder)
    with pytest.raises(SurgdinoError) as caught:
        surgdino.load(folder)
    line = caught.value.line()
    assert words in line
    assert str(folder) in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 99}, "newer surgdino"),
        ({"mean": ...}, "mean is not set"),
        ({"timm_kwargs": {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 3, "num_heads": 2}}, "blocks.2."),
    ],
)
def test_a_description_that_does_not_fit_is_told(change: dict, words: str, saved) -> None:
    folder, backbone = saved
    info = {**read_model_json(folder), **change}
    info = {key: value for key, value in info.items() if value is not ...}
    save_file(backbone.vit.state_dict(), folder / WEIGHTS)
    (folder / MODEL_JSON).write_text(json.dumps(info))
    with pytest.raises(SurgdinoError) as caught:
        surgdino.load(folder)
    assert words in caught.value.line()


def test_a_path_that_is_not_there_is_told() -> None:
    with pytest.raises(SurgdinoError, match=r"runs/none: does not exist\. Give a run folder"):
        surgdino.load("runs/none")


def test_a_checkpoint_is_used_at_its_own_size_however_small_the_crops():
    backbone = build_backbone(shipped_settings("model", "vit_tiny_patch16"), drop_path=0.0)
    assert [usual_size(backbone, side) for side in (0, 96, 224, 250, 512)] == [224, 224, 224, 240, 512]
    assert usual_size(build_backbone(shipped_settings("model", "vit_toy"), drop_path=0.0), 16) == 32
    large = build_backbone(shipped_settings("model", "vit_small_patch14"), drop_path=0.0)
    assert usual_size(large) == 224, "518 px are its grid, and five times the work"
