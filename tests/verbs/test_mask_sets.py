"""Every set with masks goes the whole way; and one whose videos share a folder is learnt from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from surgdino.backbone.checkpoint import save_backbone
from surgdino.backbone.vit import build_backbone
from surgdino.cli.main import main
from surgdino.config import shipped_settings
from surgdino.datasets.synthetic.masks import LAYOUTS, write_masks
from tests.tasks.sets import FP32, QUICK, SMALL

pytestmark = pytest.mark.slow
SUITE = """\
datasets:
  {name}:
evaluations:
  frames: {{evaluation: classification, classifier: knn, tokens: class, labels: {kinds}, shares: [1], seeds: 1}}
  masks:
    {{evaluation: segmentation, classifier: linear, classes: separate, layers: 1, scales: [1], patches: 500,
      tested: operations}}
"""
KINDS = {**dict.fromkeys(LAYOUTS, ()), "endoscapes": ("cvs", "structures"), "sar_rarp50": ("action",)}  # beside masks


def words(place: Path, name: str) -> list[str]:
    """A written set, what it is called, and a split of its four videos."""
    train, more, val, test = write_masks(place / "set", name, frames=2, public_ids=True)
    split = f"data.split={{train: [{train}, {more}], val: [{val}], test: [{test}]}}"
    return [f"dataset={name}", f"data.root={place / 'set'}", f"data.store={place / 'store'}", split]


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_set_with_masks_goes_the_whole_way(name, tmp_path):
    own = words(tmp_path, name)
    assert main(["verify", *own[:2]]) == 0
    tune = {word.partition("=")[0]: word for word in (*own, *SMALL, *FP32, *QUICK, "train.steps=4")}
    assert main(["finetune", "task=segmentation", *tune.values(), f"run.dir={tmp_path / 'tune'}"]) == 0
    torch.manual_seed(0)
    save_backbone(tmp_path / "natural", build_backbone(shipped_settings("model", "vit_toy")), {"image_size": 32})
    (tmp_path / "suite.yaml").write_text(SUITE.format(name=name, kinds=[*KINDS[name]] or ["phase"]))
    place = (f"data.{name}={tmp_path / 'set'}", own[2], f"run.dir={tmp_path / 'table'}")
    small = ("data.short_side=96", "data.workers=1", "hardware.loader_workers=0", *FP32)
    asked = (f"suite={tmp_path / 'suite.yaml'}", f"backbones=[{tmp_path / 'natural'}]")
    assert main(["benchmark", *asked, *place, *small]) == 0
    results = json.loads((tmp_path / "table/results.json").read_text())
    assert not results["failed"]
    assert {row["labels"] for row in results["rows"]} == {*KINDS[name], "masks"}


def test_videos_that_share_a_folder_are_learnt_from(tmp_path):
    small = [word for word in (*SMALL, *FP32) if not word.startswith("image_size")]
    learn = ("train.steps=2", "train.batch_size=2", "probe.every=0", "data.part=train")
    crops = ("crops.global_size=32", "crops.local_size=16", "crops.local_count=1")
    own = words(tmp_path, "endoscapes")
    assert main(["pretrain", *own, *small, *learn, *crops, "method=simdinov2", f"run.dir={tmp_path / 'run'}"]) == 0
