"""A folder for Hugging Face's transformers: `AutoModel.from_pretrained(FOLDER)`, and `AutoImageProcessor` likewise.

Tensors have the names that the hub's own files have (`facebook/dinov2-small`), which transformers 4 and 5 both read.
Learned positions are those of the usual picture size, so that nothing is interpolated there: away from it transformers
interpolates by rules of its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from surgdino.backbone.checkpoint import save_tensors
from surgdino.backbone.positions import on_grid
from surgdino.backbone.vit import Features
from surgdino.errors import SurgdinoError
from surgdino.exports.format import Format, Program
from surgdino.exports.graph import BACKBONE, Subject
from surgdino.paths import write_text

_ACTIVATIONS = {"GELU": "gelu", "GELUTanh": "gelu_pytorch_tanh", "QuickGELU": "quick_gelu", "SiLU": "silu"}
_BICUBIC = 3  # as PIL numbers it

# timm's name of a tensor, or of a part of a block, -> that of transformers; `{}` stands for query, key and value.
_SHARED = {"norm.weight": "layernorm.weight", "norm.bias": "layernorm.bias", "cls_token": "embeddings.cls_token"}
_PATCHES = {f"patch_embed.proj.{kind}": f"embeddings.patch_embeddings.projection.{kind}" for kind in ("weight", "bias")}
_DINOV2 = {
    "norm1": "norm1",
    "attn.qkv": "attention.attention.{}",
    "attn.proj": "attention.output.dense",
    "norm2": "norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
    "ls1.gamma": "layer_scale1.lambda1",
    "ls2.gamma": "layer_scale2.lambda1",
}
_VIT = {
    "norm1": "layernorm_before",
    "attn.qkv": "attention.attention.{}",
    "attn.proj": "attention.output.dense",
    "norm2": "layernorm_after",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
_DINOV3 = {
    **_DINOV2,
    "attn.qkv": "attention.{}_proj",
    "attn.proj": "attention.o_proj",
    "mlp.fc1": "mlp.up_proj",
    "mlp.fc2": "mlp.down_proj",
    "gamma_1": "layer_scale1.lambda1",
    "gamma_2": "layer_scale2.lambda1",
}


class HuggingFace(Format):
    """`config.json`, `model.safetensors`, `preprocessor_config.json`."""

    NEEDS = ("transformers",)
    LIBRARY, OTHER_SIZES = "transformers", True

    def write(self, subject: Subject, folder: Path) -> None:
        """The three files; transformers is not asked."""
        model = subject.model
        side, patch = model.info["image_size"], model.backbone.patch_size
        vit = on_grid(model.backbone, (side // patch, side // patch), 0.0).vit if _learned(model.backbone.vit) else None
        config, tensors = _translated(vit or model.backbone.vit, side, patch, model.backbone.settings.timm)
        processor = {
            "image_processor_type": "ViTImageProcessor",
            "do_convert_rgb": True,
            "do_resize": True,
            "size": {"height": side, "width": side},
            "resample": _BICUBIC,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": model.info["mean"],
            "image_std": model.info["std"],
        }
        write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")
        write_text(folder / "preprocessor_config.json", json.dumps(processor, indent=2) + "\n")
        save_tensors(tensors, folder / "model.safetensors", {"format": "pt"})

    def read(self, subject: Subject, folder: Path) -> Mapping[str, Program]:
        """By transformers alone."""
        from transformers import AutoModel
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
        model = AutoModel.from_pretrained(str(folder), local_files_only=True).eval()
        prefix = 1 + getattr(model.config, "num_register_tokens", 0)
        more = {"interpolate_pos_encoding": True} if model.config.model_type == "vit" else {}

        def features(images: Tensor) -> Features:
            tokens = model(images, **more).last_hidden_state
            return Features(tokens[:, 0], tokens[:, prefix:])

        return {BACKBONE: features}

    def use(self, subject: Subject, folder: str) -> str:
        """See `Format`."""
        return f"""\
from transformers import AutoImageProcessor, AutoModel

processor = AutoImageProcessor.from_pretrained("{folder}")  # processor(pictures, return_tensors="pt").pixel_values
model = AutoModel.from_pretrained("{folder}").eval()
tokens = model(images).last_hidden_state  # [B, 1 + registers + N, D], the class token first"""


def _learned(vit: Any) -> bool:
    return getattr(vit, "pos_embed", None) is not None


def _translated(vit: Any, side: int, patch: int, architecture: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What config.json says and the tensors under transformers' names.

    Raises:
        SurgdinoError: transformers has no such model.
    """
    block, registers = vit.blocks[0], vit.num_prefix_tokens - 1
    scaled = any(name.endswith(("ls1.gamma", "gamma_1")) for name in vit.state_dict())
    config: dict[str, Any] = {
        "hidden_size": vit.embed_dim,
        "num_hidden_layers": len(vit.blocks),
        "num_attention_heads": block.attn.num_heads,
        "hidden_act": _ACTIVATIONS.get(type(block.mlp.act).__name__),
        "layer_norm_eps": getattr(vit.norm, "eps", None),
        "image_size": side,
        "patch_size": patch,
        "num_channels": 3,
        "torch_dtype": "float32",
    }
    tensors = dict(vit.state_dict())
    hidden, bias = tensors["blocks.0.mlp.fc2.weight"].shape[1], "blocks.0.attn.qkv.bias" in tensors
    if getattr(vit, "rope", None) is not None:
        kind, name = "DINOv3ViTModel", "dinov3_vit"
        config |= {"intermediate_size": hidden, "num_register_tokens": registers}
        config |= {"rope_theta": float(getattr(vit.rope, "temperature", 100.0))}
        config |= _split_biases(tensors, len(vit.blocks))
        found = _renamed(tensors, "layer.", _DINOV3, {**_SHARED, **_of_dinov3(registers)})
        found["embeddings.mask_token"] = torch.zeros(1, 1, vit.embed_dim)
    elif scaled or registers:
        kind, name = ("Dinov2WithRegistersModel", "dinov2_with_registers") if registers else ("Dinov2Model", "dinov2")
        config |= {"mlp_ratio": hidden // vit.embed_dim, "qkv_bias": bias}
        config |= {"num_register_tokens": registers} if registers else {}
        found = _renamed(tensors, "encoder.layer.", _DINOV2, {**_SHARED, **_PATCHES, **_with_positions(registers)})
        found["embeddings.mask_token"] = torch.zeros(1, vit.embed_dim)
        ones = torch.ones(vit.embed_dim)
        for k in range(len(vit.blocks)) if not scaled else ():
            found |= {f"encoder.layer.{k}.layer_scale{part}.lambda1": ones for part in (1, 2)}
    else:
        kind, name = "ViTModel", "vit"
        config |= {"intermediate_size": hidden, "qkv_bias": bias}
        found = _renamed(tensors, "encoder.layer.", _VIT, {**_SHARED, **_PATCHES, **_with_positions(0)})
        # Its pooler, which no training of ours has, hands the class token on, as DINOv2's does.
        config |= {"pooler_act": "linear", "pooler_output_size": vit.embed_dim}
        found |= {"pooler.dense.weight": torch.eye(vit.embed_dim), "pooler.dense.bias": torch.zeros(vit.embed_dim)}
    wrong = [f"a tensor {left}" for left in sorted(tensors)]
    wrong += [f"no {key}" for key, value in config.items() if value is None]
    wrong += ["mlp_ratio"] if config.get("mlp_ratio", 1) * vit.embed_dim != hidden and "mlp_ratio" in config else []
    if wrong:
        raise SurgdinoError(
            f"transformers' {kind} is not what {architecture} with these options is",
            expected="tensors and layers of that model",
            found=", ".join(wrong[:3]),
            fix="use format=timm or torch_export",
        )
    if "embeddings.position_embeddings" in found and vit.no_embed_class:  # theirs always has a position for the class
        learned = found["embeddings.position_embeddings"]
        found["embeddings.position_embeddings"] = torch.cat([torch.zeros_like(learned[:, :1]), learned], 1)
    return {"architectures": [kind], "model_type": name, **config}, found


def _with_positions(registers: int) -> dict[str, str]:
    return {
        "pos_embed": "embeddings.position_embeddings",
        **({"reg_token": "embeddings.register_tokens"} if registers else {}),
    }


def _of_dinov3(registers: int) -> dict[str, str]:
    shared = {f"norm.{kind}": f"norm.{kind}" for kind in ("weight", "bias")}
    patches = {f"patch_embed.proj.{kind}": f"embeddings.patch_embeddings.{kind}" for kind in ("weight", "bias")}
    return {**shared, **patches, **({"reg_token": "embeddings.register_tokens"} if registers else {})}


def _split_biases(tensors: dict[str, Tensor], blocks: int) -> dict[str, bool]:
    """DINOv3 may have biases of queries and values alone; they are put together as one of all three, with zeros."""
    for k in range(blocks):
        query, value = (tensors.pop(f"blocks.{k}.attn.{which}_bias", None) for which in "qv")
        if query is not None and value is not None:
            tensors[f"blocks.{k}.attn.qkv.bias"] = torch.cat([query, torch.zeros_like(query), value])
    has = "blocks.0.attn.qkv.bias" in tensors
    return {"query_bias": has, "key_bias": has, "value_bias": has}


def _renamed(
    tensors: dict[str, Tensor], blocks: str, of_block: Mapping[str, str], others: Mapping[str, str]
) -> dict[str, Tensor]:
    """Those that have a name there, taken out of `tensors`."""
    found = dict[str, Tensor]()
    words = ("q", "k", "v") if "{}_proj" in of_block["attn.qkv"] else ("query", "key", "value")
    for name in list(tensors):
        if name in others:
            found[others[name]] = tensors.pop(name)
            continue
        _, _, inner = name.partition(".")
        number, _, inner = inner.partition(".")
        part, _, kind = inner.rpartition(".") if inner not in of_block else (inner, "", "")
        if not name.startswith("blocks.") or part not in of_block:
            continue
        there = f"{blocks}{number}.{of_block[part]}{kind and '.' + kind}"
        tensor = tensors.pop(name)
        if "{}" in there:
            found |= {there.format(word): each for word, each in zip(words, tensor.chunk(3), strict=True)}
        else:
            found[there] = tensor
    return found
