"""Every temporal model as a program of fixed steps, for any number of frames."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from surgdino.exports.formats.torch_export import traced
from surgdino.exports.graph import Graph
from surgdino.tasks.classifier.head import FrameClassifier
from surgdino.tasks.phase.head import PhaseHead, VideoProgram
from surgdino.tasks.phase.settings import NONE, temporal_names
from surgdino.tasks.phase.stages import level_of
from surgdino.tasks.phase.temporal import build_temporal

WIDTH, CLASSES = 8, 3


@pytest.mark.quick("none", "tcn_offline")
@pytest.mark.parametrize("name", temporal_names())
def test_the_program_is_the_model(name):
    torch.manual_seed(0)
    frame = FrameClassifier(WIDTH, CLASSES, tokens="cls+mean")
    temporal = build_temporal(name, frame.features, CLASSES, layers=2, width=8, window=16)
    head = PhaseHead(frame, temporal).eval().requires_grad_(False)
    aligns = name == NONE or name.endswith("_offline")
    program = traced(Graph("video", VideoProgram(head, aligns), (2 * WIDTH,), {"p": ""}, "features", least=2)).module()
    for count in (4, 90):
        pooled = np.random.default_rng(count).normal(3, 2, (count, 2 * WIDTH)).astype(np.float32)
        pooled[:, 0] = 1.5  # a feature that never changes keeps its scale
        level = level_of(pooled, slice(0, count)).transform(pooled) if aligns else pooled
        [said] = head.probabilities(iter([torch.from_numpy(level).float()]))
        assert torch.allclose(program(torch.from_numpy(pooled))[0], said, atol=1e-5)
