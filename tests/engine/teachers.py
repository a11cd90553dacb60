"""Toy checkpoints that the tests of distillation learn from."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch

from surgdino.backbone.checkpoint import save_backbone
from surgdino.backbone.vit import build_backbone

TEACHER = {
    "name": "toy_teacher",
    "timm": "vit_tiny_patch16_224",
    "timm_kwargs": {"img_size": 32, "patch_size": 8, "embed_dim": 96, "depth": 2, "num_heads": 3},
    "mean": [0.4, 0.5, 0.6],
    "std": [0.2, 0.25, 0.3],
}


def save_teacher(folder: Path, model: dict[str, Any] = TEACHER, seed: int = 1, **facts: Any) -> str:
    """A checkpoint with random weights; its path."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return str(save_backbone(folder, build_backbone(model), facts))


@cache
def toy_teacher() -> str:
    """One for all tests."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder)
    return save_teacher(Path(folder))
