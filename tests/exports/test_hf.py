"""Every model that can be chosen gives transformers its features, at 1e-4; what transformers has not is refused."""

from __future__ import annotations

import json

import pytest
import torch

from surgdino.backbone.checkpoint import load, save_backbone
from surgdino.backbone.vit import build_backbone
from surgdino.config import shipped_settings
from surgdino.discovery import files
from surgdino.errors import SurgdinoError
from surgdino.exports.compare import features_differ
from surgdino.exports.format import open_format
from surgdino.exports.graph import BACKBONE, of_backbone

SMALL = {"embed_dim": 64, "depth": 2, "num_heads": 2}
KINDS = {"dinov3": "DINOv3ViTModel", "reg4": "Dinov2WithRegistersModel", "patch14": "Dinov2Model", "": "ViTModel"}
pytest.importorskip("transformers")


def written(folder, **changes):
    """A small backbone of random weights, none of them what it is initialised with, and its export."""
    model = dict(changes)
    model["timm_kwargs"] = {**SMALL, **model["timm_kwargs"]}
    torch.manual_seed(0)
    backbone = build_backbone(model, drop_path=0.0).eval()
    with torch.no_grad():
        for parameter in backbone.vit.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    save_backbone(folder / "run", backbone, {})
    subject, target = of_backbone(load(folder / "run")), open_format("hf")
    (folder / "out").mkdir()
    target.write(subject, folder / "out")
    return subject, target.read(subject, folder / "out")[BACKBONE]


@pytest.mark.quick("vit_small_patch14", "dinov3", "vit_toy")
@pytest.mark.parametrize("name", sorted(files("configs/model")))
def test_transformers_gives_the_same_features(tmp_path, name):
    subject, program = written(tmp_path, **shipped_settings("model", name))
    assert features_differ(subject.model, program, subject.model.info["image_size"]) <= 1e-4
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["architectures"] == [next(kind for word, kind in KINDS.items() if word in name)]
    if "dinov3" in name:  # rotary positions follow the picture
        assert features_differ(subject.model, program, 256) <= 1e-4


def test_its_processor_gives_our_pictures(tmp_path):
    """Of pictures that already have the usual size there is nothing to resize."""
    import numpy as np
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    subject, _ = written(tmp_path, **shipped_settings("model", "vit_toy"))
    processor = ViTImageProcessorPil.from_pretrained(tmp_path / "out")
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    theirs = processor(picture, return_tensors="pt").pixel_values
    assert torch.allclose(theirs, subject.model.preprocess(picture), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "told"),
    [({"qk_norm": True}, "k_norm"), ({"act_layer": "relu"}, "no hidden_act"), ({"pre_norm": True}, "norm_pre")],
)
def test_what_transformers_has_not_is_refused(tmp_path, options, told):
    model = shipped_settings("model", "vit_toy")
    with pytest.raises(SurgdinoError, match=rf"ViTModel is not what.*{told}.*Use format=timm"):
        written(tmp_path, **{**model, "timm_kwargs": {**model["timm_kwargs"], **options}})
