"""A graph for onnxruntime and whatever else reads ONNX."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from surgdino.backbone.checkpoint import LoadedBackbone
from surgdino.backbone.vit import Features
from surgdino.exports.format import Format, Plain

FILE, OPSET = "backbone.onnx", 18


class Onnx(Format):
    """`backbone.onnx`: pictures of the usual size, any number of them; checked by onnxruntime on the CPU."""

    NEEDS = ("onnx", "onnxscript", "onnxruntime")
    USE = """\
import onnxruntime

session = onnxruntime.InferenceSession("FOLDER/backbone.onnx")
cls, patches = session.run(None, {"images": images})  # images: float32 [B, 3, S, S], normalised; [B, D], [B, N, D]"""

    def write(self, model: LoadedBackbone, folder: Path) -> None:
        """The graph with its weights."""
        side = model.info["image_size"]
        example = torch.zeros(2, 3, side, side)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the exporter's own, on what it will do differently one day
            torch.onnx.export(
                Plain(model),
                (example,),
                folder / FILE,
                input_names=["images"],
                output_names=["cls", "patches"],
                dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=4096)},),
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )

    def read(self, folder: Path) -> Callable[[Tensor], Features]:
        """By onnxruntime alone."""
        import onnxruntime

        session = onnxruntime.InferenceSession(str(folder / FILE), providers=["CPUExecutionProvider"])
        return lambda images: Features(*map(torch.from_numpy, session.run(None, {"images": images.numpy()})))
