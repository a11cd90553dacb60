"""A folder for `timm.create_model("local-dir:FOLDER", pretrained=True)`, which the Hugging Face hub takes as it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from surgdino.backbone.checkpoint import save_tensors
from surgdino.backbone.timm_import import timm
from surgdino.exports.format import Format, Program
from surgdino.exports.graph import BACKBONE, Subject, features_of, timm_options
from surgdino.paths import write_text


class Timm(Format):
    """`config.json` and `model.safetensors`, as timm writes them for the hub."""

    LIBRARY, OTHER_SIZES = "timm", True

    def write(self, subject: Subject, folder: Path) -> None:
        """Weights, and what timm needs to know of them."""
        model = subject.model
        info, side = model.info, model.info["image_size"]
        data = {"input_size": [3, side, side], "mean": info["mean"], "std": info["std"]}
        more = {"interpolation": "bicubic", "crop_pct": 1.0, "crop_mode": "squash", "fixed_input_size": False}
        config = {
            "architecture": info["timm"],
            "num_classes": 0,
            "num_features": model.backbone.embed_dim,
            "global_pool": "token",
            "model_args": timm_options(model),
            "pretrained_cfg": {**data, **more, "num_classes": 0, "classifier": "head"},
        }
        write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")
        save_tensors(model.backbone.vit.state_dict(), folder / "model.safetensors", {"format": "pt"})

    def read(self, subject: Subject, folder: Path) -> Mapping[str, Program]:
        """By timm alone."""
        vit = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        return {BACKBONE: lambda images: features_of(vit, images)}

    def use(self, subject: Subject, folder: str) -> str:
        """See `Format`."""
        return f"""\
import timm

model = timm.create_model("local-dir:{folder}", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))  # PIL image -> [3, S, S]
tokens = model.forward_features(images)  # [B, 1 + registers + N, D], the class token first"""
