"""A program that torch runs without timm or surgdino: `torch.export.load("FOLDER/backbone.pt2")`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from surgdino.backbone.checkpoint import LoadedBackbone
from surgdino.backbone.vit import Features
from surgdino.exports.format import Format, Plain

FILE = "backbone.pt2"


class TorchExport(Format):
    """`backbone.pt2`: pictures of the usual size, any number of them."""

    USE = """\
import torch

model = torch.export.load("FOLDER/backbone.pt2").module()
cls, patches = model(images)  # images: float32 [B, 3, S, S], normalised; [B, D], [B, N, D]"""

    def write(self, model: LoadedBackbone, folder: Path) -> None:
        """The traced program."""
        side = model.info["image_size"]
        batch = torch.export.Dim("batch", min=1, max=4096)
        example = torch.zeros(2, 3, side, side)
        with torch.no_grad():
            program = torch.export.export(Plain(model), (example,), dynamic_shapes=({0: batch},))
        torch.export.save(program, folder / FILE)

    def read(self, folder: Path) -> Callable[[Tensor], Features]:
        """By torch alone."""
        program = torch.export.load(folder / FILE).module()
        return lambda images: Features(*program(images))
