"""Every set with masks goes the whole way: verify, pretrain, finetune, benchmark."""

from __future__ import annotations

import json

import pytest
import torch

from surgdino.backbone.checkpoint import save_backbone
from surgdino.backbone.vit import build_backbone
from surgdino.cli.main import main
from surgdino.config import shipped_settings
from surgdino.datasets.synthetic.masks import LAYOUTS, write_masks
from tests.tasks.sets import FP32, QUICK, SMALL

SUITE = """\
datasets:
  {name}:
evaluations:
  frames: {{evaluation: classification, classifier: knn, tokens: class, labels: {kinds}, shares: [1], seeds: 1}}
  masks: {{evaluation: segmentation, classifier: linear, classes: separate, layers: 1, scales: [1], patches: 500}}
"""
KINDS = {**dict.fromkeys(LAYOUTS, ()), "endoscapes": ("cvs", "structures"), "sar_rarp50": ("action",)}  # beside masks


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYOUTS)
def test_a_set_with_masks_goes_the_whole_way(name, tmp_path):
    videos = list(write_masks(tmp_path / "set", name, frames=2, public_ids=True))
    split = f"data.split={{train: [{videos[0]}, {videos[1]}], val: [{videos[2]}], test: [{videos[3]}]}}"
    place = (f"data.root={tmp_path / 'set'}", f"data.store={tmp_path / 'store'}")
    own = (f"dataset={name}", *place, *SMALL, *FP32)
    assert main(["verify", f"dataset={name}", place[0]]) == 0
    crops = ("crops.global_size=32", "crops.local_size=16", "crops.local_count=1")
    learn = ("train.steps=2", "train.batch_size=2", "probe.every=0", split, "data.part=train", *crops)
    pretrain = [word for word in own if not word.startswith("image_size")]
    assert main(["pretrain", *pretrain, "method=simdinov2", *learn, f"run.dir={tmp_path / 'pre'}"]) == 0
    tune = {
        word.partition("=")[0]: word for word in (*own, *QUICK, "train.steps=4", split, f"run.dir={tmp_path / 'tune'}")
    }
    assert main(["finetune", "task=segmentation", *tune.values(), f"model.weights={tmp_path / 'pre'}"]) == 0
    torch.manual_seed(0)
    save_backbone(tmp_path / "natural", build_backbone(shipped_settings("model", "vit_toy")), {"image_size": 32})
    (tmp_path / "suite.yaml").write_text(SUITE.format(name=name, kinds=[*KINDS[name]] or ["phase"]))
    words = (
        f"suite={tmp_path / 'suite.yaml'}",
        f"backbones=[{tmp_path / 'natural'}]",
        f"data.{name}={tmp_path / 'set'}",
    )
    more = (place[1], "data.short_side=96", "data.workers=1", "hardware.loader_workers=0", *FP32)
    assert main(["benchmark", *words, *more, f"run.dir={tmp_path / 'table'}"]) == 0
    results = json.loads((tmp_path / "table/results.json").read_text())
    assert not results["failed"]
    assert {row["labels"] for row in results["rows"]} == {*KINDS[name], "masks"}
