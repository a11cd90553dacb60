"""A DINOv2 file goes its whole way by its recipe: read, adapted, measured, stopped, resumed, shipped."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from surgdino.backbone.checkpoint import load
from surgdino.backbone.timm_import import timm
from surgdino.cli.main import main
from tests.engine.test_training import stop_after


@pytest.mark.slow
@pytest.mark.real
def test_dinov2_is_adapted_measured_resumed_and_shipped_on_real_frames(real_data, tmp_path, monkeypatch):
    file, run = real_data / "weights" / "vit_small_patch14_dinov2_saliency.fp16.safetensors", tmp_path / "run"
    words = ["pretrain", "recipe=dinov2_small", "dataset=cholect50", f"data.root={real_data / 'cholect50'}"]
    words += [f"model.weights={file}", f"data.store={tmp_path / 'store'}", f"run.dir={run}", "hardware=cpu"]
    words += ["crops.global_size=112", "crops.local_size=56", "crops.local_count=2", "train.batch_size=4"]
    words += ["train.steps=4", "train.head_warmup_steps=1", "train.warmup_steps=1", "train.log_every=1"]
    words += ["probe.hold_out=[VID73]", "probe.frames=16", "data.short_side=128", "hardware.loader_workers=0"]
    with monkeypatch.context() as patched:
        stop_after(patched, 2)
        assert main(words) == 0
    assert main(words) == 0
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4]
    assert [row["step"] for row in rows if "probe_effective_rank" in row] == [0, 4]
    assert {row["lr"] for row in rows if row.get("step", 0) > 1 and "loss" in row} == {5e-5}
    before, after = load_file(file), load_file(run / "checkpoint" / "backbone.safetensors")
    plain = timm.create_model("vit_small_patch14_dinov2", num_classes=0)
    plain.load_state_dict(after, strict=True)
    stayed = {name for name in after if torch.equal(after[name], before[name].float())}
    assert stayed == {"cls_token", "pos_embed"}
    adapted = load(run)
    picture = adapted.preprocess([np.zeros((120, 160, 3), np.uint8)])
    assert adapted(picture).patches.shape == (1, 256, 384)
    assert adapted.info["freeze_tokens"] == ["class", "mask", "position"]
    assert Path(adapted.info["initial_weights"]["path"]).name == file.name
