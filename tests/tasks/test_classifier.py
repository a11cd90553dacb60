"""What tasks share that classify single frames."""

from __future__ import annotations

import torch

from surgdino.backbone.vit import build_backbone
from surgdino.config import shipped_settings
from surgdino.tasks.classifier.head import FrameClassifier, TunedHead


def test_a_state_that_calls_the_head_classifier_is_the_same_state():
    model = TunedHead(build_backbone(shipped_settings("model", "vit_toy")), FrameClassifier(64, 3, tokens="cls+mean"))
    now = model.state_dict()
    before = {name.replace("head.", "classifier.", 1): torch.ones_like(value) for name, value in now.items()}
    assert any(name.startswith("classifier.") for name in before)
    model.load_state_dict(before)
    assert all((value == 1).all() for value in model.state_dict().values())
