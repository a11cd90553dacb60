"""What a backbone sees, to look at: its patch features as colours, its nearest frames, where its class token looks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from surgdino.backbone.preprocess import Preprocess
from surgdino.checkpoint import LoadedBackbone

_BATCH = 16


@torch.no_grad()
def encode(
    model: LoadedBackbone, frames: Sequence[np.ndarray], side: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Class tokens float32 [n, D] and patch tokens float32 [n, N, D] of RGB frames, uint8 [H, W, 3] each.

    Args:
        side: pixels that the frames are brought to; None for those of the model's own use.
    """
    cls, patches = [], []
    for start in range(0, len(frames), _BATCH):
        features = model(_images(model, frames[start : start + _BATCH], side))
        cls.append(features.cls.float().cpu())
        patches.append(features.patches.float().cpu())
    return torch.cat(cls).numpy(), torch.cat(patches).numpy()


def component_colours(patches: np.ndarray, reference: np.ndarray | None = None) -> np.ndarray:
    """The first three principal components of all frames' patch tokens as red, green and blue.

    Args:
        patches: [n, N, D] of a square grid.
        reference: [n, N, 3], the result for another backbone on the same frames; the components are turned (orthogonal
            Procrustes, Schoenemann 1966) towards it, so that a colour means about the same in both pictures.

    Returns:
        float [n, N, 3] in 0..1.
    """
    flat = patches.reshape(-1, patches.shape[-1]).astype(np.float64)
    flat = flat - flat.mean(0)
    _, _, axes = np.linalg.svd(flat, full_matrices=False)
    scores = flat @ axes[:3].T
    scores /= scores.std(0) + 1e-12
    if reference is not None:
        target = reference.reshape(-1, 3) - 0.5
        left, _, right = np.linalg.svd(scores.T @ target)
        scores = scores @ left @ right
    # 2.5 standard deviations to either side fill the range; few patches lie beyond.
    return np.clip(scores / 5 + 0.5, 0, 1).reshape(*patches.shape[:2], 3)


def as_picture(colours: np.ndarray, side: int) -> np.ndarray:
    """A square grid of patches, [N, 3] (or [N]) in 0..1, as uint8 RGB [side, side, 3] with the patches' edges kept."""
    grid = round(len(colours) ** 0.5)
    values = np.rint(255 * np.asarray(colours)).astype(np.uint8)
    if values.ndim == 1:
        values = cv2.cvtColor(cv2.applyColorMap(values, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)[:, 0]
    return cv2.resize(values.reshape(grid, grid, 3), (side, side), interpolation=cv2.INTER_NEAREST)


def neighbours_elsewhere(cls: np.ndarray, operations: Sequence[str], queries: Sequence[int], count: int) -> np.ndarray:
    """For each query the `count` nearest frames (cosine) of other operations, int64 [queries, count], nearest first.

    Frames of the query's own operation are no answer: they look alike whatever was learned.
    """
    unit = cls / (np.linalg.norm(cls, axis=1, keepdims=True) + 1e-12)
    names = np.asarray(operations)
    similar = unit[list(queries)] @ unit.T
    similar[names[list(queries)][:, None] == names[None, :]] = -np.inf
    return np.argsort(-similar, axis=1, kind="stable")[:, :count]


@torch.no_grad()
def class_attention(model: LoadedBackbone, frames: Sequence[np.ndarray], side: int | None = None) -> np.ndarray | None:
    """Where the class token looks in the last block: mean over heads, float [n, N], each frame's largest being 1.

    None for a backbone whose attention is not timm's plain one (rotary positions, say, enter between the layers).
    """
    attention: Any = getattr(model.backbone.vit.blocks[-1], "attn", None)
    if type(attention).__name__ != "Attention" or not hasattr(attention, "qkv"):
        return None
    taken: list[Tensor] = []
    hook = attention.qkv.register_forward_hook(lambda _module, _inputs, output: taken.append(output.detach().float()))
    looks = []
    try:
        for start in range(0, len(frames), _BATCH):
            images = _images(model, frames[start : start + _BATCH], side)
            taken.clear()
            patches = model(images).patches.shape[1]
            looks.append(_looks(taken[-1].reshape(len(images), -1, taken[-1].shape[-1]), attention, patches))
    finally:
        hook.remove()
    weights = torch.cat(looks)
    return (weights / weights.amax(1, keepdim=True).clamp(min=1e-12)).cpu().numpy()


def _looks(qkv: Tensor, attention: Any, patches: int) -> Tensor:
    query, key, _ = qkv.unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
    query, key = attention.q_norm(query), attention.k_norm(key)
    logits = query[:, :, :1] @ key.mT * query.shape[-1] ** -0.5
    return logits.softmax(-1)[:, :, 0, -patches:].mean(1)


def over_frame(frame: np.ndarray, weights: np.ndarray, side: int) -> np.ndarray:
    """A frame, square, with attention laid over it as light: uint8 RGB [side, side, 3]."""
    picture = squared(frame, side).astype(np.float32)
    grid = round(len(weights) ** 0.5)
    light = cv2.resize(weights.reshape(grid, grid).astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
    light = np.clip(light, 0, 1)[..., None]
    warm = np.array([255, 176, 60], np.float32)
    return np.clip(picture * (0.35 + 0.4 * light) + warm * 0.45 * light, 0, 255).astype(np.uint8)


def squared(frame: np.ndarray, side: int) -> np.ndarray:
    """The frame as the backbone gets it: squeezed to a square of `side` pixels."""
    return cv2.resize(frame, (side, side), interpolation=cv2.INTER_AREA)


def detailed(model: LoadedBackbone, cells: int) -> int:
    """The side in pixels at which the model sees `cells` x `cells` patches."""
    return cells * model.backbone.patch_size


def _images(model: LoadedBackbone, frames: Sequence[np.ndarray], side: int | None) -> Tensor:
    own = model.preprocess
    preprocess = own if side is None else Preprocess(side, own.mean, own.std)
    return preprocess(list(frames)).to(next(model.parameters()).device)
