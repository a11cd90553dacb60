"""Translates the parameter names of other code bases into timm's.

Read here: timm, DINO, DINOv2 (with and without registers, in block chunks) and DINOv3 as their authors published them,
Hugging Face ViT, Dinov2 and Dinov2WithRegisters, the encoder of a masked autoencoder, and any of these inside a
training checkpoint (`teacher`, `student`, `model`, Lightning's `state_dict`) or behind prefixes (`module.`,
`backbone.`, `_orig_mod.`, ...). Everything works on plain dictionaries of tensors; what fits a given model is decided
in weights.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from surgdino.errors import SurgdinoError

# A training checkpoint's parts in the order of preference: the averaged weights are the better features.
_CONTAINERS = ("teacher", "model_ema", "state_dict", "model_state_dict", "model", "module", "student", "backbone")
_LEVELS = 8  # of containers; a pickle may hold itself
_TIMM_ANCHOR, _HF_ANCHOR = "patch_embed.proj.weight", "embeddings.patch_embeddings.projection.weight"
_HEADS = re.compile(r"^(head|heads|head_dist|dino_head|ibot_head|pre_logits|classifier|pooler|linear_head)\.")
_DECODER = re.compile(r"(^|\.)decoder[._]")  # of a masked autoencoder, whose mask token is the decoder's too
# Not parameters of a timm model: constants that it computes itself, or parts that serve pretraining only.
_CONSTANTS = re.compile(r"^(rope_embed|rope)\.periods$|\.bias_mask$|^local_cls_norm\.|position_ids$")

_HF_NAMES = (
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.mask_token$", "mask_token"),
    (r"^embeddings\.register_tokens$", "register_tokens"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^layernorm\.", "norm."),
    (r"^encoder\.layer\.(\d+)\.", r"blocks.\1."),
    (r"\.attention\.attention\.", ".attn."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
)


@dataclass
class Conversion:
    """Tensors under timm's names, and what was done on the way."""

    tensors: dict[str, Tensor]
    style: str
    container: str = ""
    dropped: list[str] = field(default_factory=list)
    mask_token: Tensor | None = None


def to_timm_names(payload: Mapping, file: Path | None = None) -> Conversion:
    """The backbone in `payload` under timm's parameter names."""
    flat, container = _open_containers(payload)
    tensors, prefix, outside = _select_backbone(flat, file)
    autoencoder = any(map(_DECODER.search, [*tensors, *outside]))
    style = "hugging face" if _HF_ANCHOR in tensors else "timm"
    if style == "hugging face":
        tensors = _from_hugging_face(tensors)
    elif "storage_tokens" in tensors:
        style = "dinov3"
        tensors = {re.sub(r"\.ls([12])\.gamma$", r".gamma_\1", name): t for name, t in tensors.items()}
        tensors["reg_token"] = tensors.pop("storage_tokens")
    elif ("mask_token" in tensors and not autoencoder) or "register_tokens" in tensors:
        style = "dinov2"
    theirs = ("mask_token",) if autoencoder else ()
    heads = [name for name in tensors if _HEADS.match(name) or _DECODER.search(name) or name in theirs]
    # DINOv2 trains in chunks of blocks, `blocks.<chunk>.<block>.`, and numbers the blocks through all chunks.
    kept = {
        re.sub(r"^blocks\.\d+\.(\d+)\.", r"blocks.\1.", name): tensor
        for name, tensor in tensors.items()
        if name not in heads and not _CONSTANTS.search(name)
    }
    mask_token = kept.pop("mask_token", None)
    if "register_tokens" in kept:
        kept["reg_token"] = kept.pop("register_tokens")
    where = ".".join(part for part in (container, prefix.rstrip(".")) if part)
    return Conversion(kept, style, where, dropped=heads + outside, mask_token=mask_token)


def fit_to_model(tensors: Mapping[str, Tensor], vit: Any) -> tuple[dict[str, Tensor], list[str]]:
    """Re-arranges tensors for a model's layout; only another position grid is inexact.

    Exact are: a class token's position added to the class token where the model has positions for patches only (DINOv2
    with registers), and zero query-key-value biases dropped where the model has none (DINOv3).

    Returns:
        The tensors, and a sentence per interpolation.
    """
    tensors, own = dict(tensors), vit.state_dict()
    remarks: list[str] = []
    for name in [n for n in tensors if n.endswith("attn.qkv.bias") and n not in own]:
        if not tensors[name].any():
            del tensors[name]
    positions, target = tensors.get("pos_embed"), own.get("pos_embed")
    if positions is None or target is None or positions.ndim != 3 or len(positions) != 1 or "cls_token" not in tensors:
        return tensors, remarks
    if vit.no_embed_class and _side(positions.shape[1]) is None and _side(positions.shape[1] - 1) is not None:
        if tensors["cls_token"].shape != positions[:, :1].shape:
            return tensors, remarks
        tensors["cls_token"] = tensors["cls_token"] + positions[:, :1]
        tensors["pos_embed"] = positions = positions[:, 1:]
    prefix = 0 if vit.no_embed_class else vit.num_prefix_tokens
    side, grid = _side(positions.shape[1] - prefix), tuple(vit.patch_embed.grid_size)
    if side is not None and (side, side) != grid and positions.shape[2] == target.shape[2]:
        tensors["pos_embed"] = resize_positions(positions, (side, side), grid, prefix)
        remarks.append(f"position embedding {side}x{side} interpolated to {grid[0]}x{grid[1]}")
    return tensors, remarks


def resize_positions(positions: Tensor, old: tuple[int, int], new: tuple[int, int], prefix: int) -> Tensor:
    """Position embedding [1, prefix + old patches, D] for another grid: bicubic with antialiasing, as timm does."""
    kept, grid = positions[:, :prefix], positions[:, prefix:].float()
    grid = grid.reshape(1, *old, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=new, mode="bicubic", antialias=True)
    return torch.cat([kept, grid.flatten(2).transpose(1, 2).to(positions.dtype)], dim=1)


def _open_containers(payload: Mapping) -> tuple[Mapping, str]:
    path: list[str] = []
    while not any(str(name).endswith((_TIMM_ANCHOR, _HF_ANCHOR)) for name in payload):
        inner = next((c for c in _CONTAINERS if isinstance(payload.get(c), Mapping)), None)
        if inner is None or len(path) == _LEVELS:
            break
        path.append(inner)
        payload = payload[inner]
    return payload, ".".join(path)


def _select_backbone(flat: Mapping, file: Path | None) -> tuple[dict[str, Tensor], str, list[str]]:
    """The tensors below the prefix that leads to a patch embedding, that prefix, and the names outside of it."""
    names = [name for name, value in flat.items() if isinstance(name, str) and isinstance(value, Tensor)]
    prefixes = {
        name.removesuffix(anchor)
        for anchor in (_TIMM_ANCHOR, _HF_ANCHOR)
        for name in names
        if name == anchor or name.endswith("." + anchor)
    }
    if not prefixes:
        raise SurgdinoError(
            "holds no vision transformer",
            file=file,
            expected=f"a tensor named {_TIMM_ANCHOR} or {_HF_ANCHOR}",
            found=f"{len(names)} tensors: {', '.join(names[:4]) or 'none'}{', ...' if len(names) > 4 else ''}",
            fix="give the backbone's own file",
        )
    prefix = min(prefixes, key=lambda p: ("teacher" not in p and "ema" not in p, len(p), p))
    inside = {name.removeprefix(prefix): flat[name] for name in names if name.startswith(prefix)}
    return inside, prefix, [name for name in names if not name.startswith(prefix)]


def _from_hugging_face(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    named = {}
    for name, tensor in tensors.items():
        for pattern, replacement in _HF_NAMES:
            name = re.sub(pattern, replacement, name)
        named[name] = tensor
    for name in [n for n in named if ".attn.query." in n]:
        parts = [name.replace(".query.", f".{part}.") for part in ("query", "key", "value")]
        if len({named[part].shape if part in named else None for part in parts}) == 1 and named[name].ndim:
            named[name.replace(".query.", ".qkv.")] = torch.cat([named.pop(part) for part in parts])
    return named


def _side(tokens: int) -> int | None:
    side = round(max(tokens, 0) ** 0.5)
    return side if side > 0 and side * side == tokens else None
