"""From video files to an adapted backbone: the engine on the rooms before it, generated video and real."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from surgdino import discovery
from surgdino.backbone.checkpoint import load
from surgdino.backbone.preprocess import Preprocess
from surgdino.backbone.vit import build_backbone
from surgdino.backbone.weights import load_weights
from surgdino.config import shipped, shipped_settings
from surgdino.crops.settings import CropSettings
from surgdino.datasets.card import load_card
from surgdino.datasets.open import open_dataset
from surgdino.engine.plan import TrainPlan
from surgdino.engine.probing import ProbeSet
from surgdino.engine.probing.probe_set import Probing
from surgdino.engine.settings import HardwareSettings, PretrainSettings
from surgdino.engine.train import train
from surgdino.frames.store import FrameStore, StoreSettings, build_store
from tests.engine.teachers import toy_teacher


def stored(root: Path, folder: Path, **settings) -> FrameStore:
    manifest = open_dataset(load_card("cholec80"), root)
    return build_store(manifest, folder, StoreSettings.of(**settings), workers=1, progress=False)


def plan_over(store: FrameStore, folder: Path, model: dict, crops: CropSettings, method: dict, **settings) -> TrainPlan:
    torch.manual_seed(0)
    probe = ProbeSet(store, 64, Preprocess(crops.global_size, tuple(model["mean"]), tuple(model["std"])))
    return TrainPlan(
        backbone=build_backbone(model),
        model=model,
        method=method,
        store=store,
        augment=shipped_settings("augment", "surgical"),
        crops=crops,
        train=shipped(PretrainSettings, "pretrain", "train", **settings),
        hardware=shipped(HardwareSettings, "hardware/cpu", loader_workers=1, threads=1),
        folder=folder,
        probe=Probing(probe, every=50),
        progress=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", discovery.names("surgdino.engine.methods"))
def test_every_method_learns_on_generated_video(name, synthetic_cholec80, tmp_path):
    store = stored(synthetic_cholec80, tmp_path / "store", fps=2.0, short_side=64)
    method = shipped_settings("method", name)
    toy = {"head_hidden": 128, "head_out": 64, "prototypes": 256, "teachers": [toy_teacher()]}
    method |= {key: value for key, value in toy.items() if key in method}
    crops = shipped(CropSettings, "crops", global_size=32, local_size=16, local_count=2)
    settings = {"steps": 40, "batch_size": 16, "lr": 2e-3, "head_warmup_steps": 5, "warmup_steps": 5}
    result = train(plan_over(store, tmp_path / "run", shipped_settings("model", "vit_toy"), crops, method, **settings))
    assert result.status == "finished"
    assert result.skipped == 0
    assert result.last["loss"] < result.first["loss"]
    assert result.last["loss"] < result.collapse["loss"] - 0.1
    assert 0 < result.probes.last.as_dict()["operation_knn"] <= 1


@pytest.mark.real
@pytest.mark.slow
def test_real_weights_adapt_to_real_video_without_collapse(real_data, tmp_path):
    """Twelve steps from ImageNet's ViT-Ti/16 on Cholec80: the terms improve in sum, the features stay alive."""
    store = stored(real_data / "cholec80", tmp_path / "store")
    model = shipped_settings("model", "vit_tiny_patch16")
    crops = shipped(CropSettings, "crops", global_size=64, local_size=32, local_count=2)
    method = {**shipped_settings("method", "simdinov2"), "head_hidden": 512}
    settings = {"steps": 12, "batch_size": 16, "log_every": 4, "head_warmup_steps": 3}
    plan = plan_over(store, tmp_path / "run", model, crops, method, **settings)
    load_weights(plan.backbone, real_data / "weights" / "vit_tiny_patch16_224.safetensors")
    before = plan.backbone.vit.blocks[-1].mlp.fc1.weight.detach().clone()
    result = train(plan)
    assert result.last["loss"] < result.first["loss"] - 0.05
    assert result.last["comp"] < 0.95
    assert result.last["expa"] > 5 * result.collapse["expa"]
    assert result.last["patch"] > -0.49
    assert result.probes.last.as_dict()["operation_knn"] > 2 * result.probes.last.as_dict()["operation_chance"]
    assert result.probes.last.as_dict()["effective_rank"] > 0.8 * result.probes.start.as_dict()["effective_rank"]
    after = load(tmp_path / "run").backbone.vit.blocks[-1].mlp.fc1.weight
    assert not torch.equal(before, after)
