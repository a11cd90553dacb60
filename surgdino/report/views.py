"""What a backbone makes of frames: tokens, patch features as colours, nearest frames, attention."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from surgdino.backbone.checkpoint import LoadedBackbone
from surgdino.backbone.preprocess import Preprocess
from surgdino.backbone.timm_import import timm
from surgdino.frames.content import Content, content_mask
from surgdino.report.feature_map import directions

_BATCH = 16


@torch.no_grad()
def encode(
    model: LoadedBackbone, frames: Sequence[np.ndarray], side: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Class tokens float32 [n, D] and patch tokens float32 [n, N, D] of RGB frames, uint8 [H, W, 3] each.

    Args:
        side: pixels that the frames are scaled to; None: the size that the model was trained on.
    """
    cls, patches = [], []
    for start in range(0, len(frames), _BATCH):
        features = model(_images(model, frames[start : start + _BATCH], side))
        cls.append(features.cls.float().cpu())
        patches.append(features.patches.float().cpu())
    return torch.cat(cls).numpy(), torch.cat(patches).numpy()


def component_colours(
    patches: np.ndarray, reference: np.ndarray | None = None, counted: np.ndarray | None = None
) -> np.ndarray:
    """The first three principal components of all frames' patch tokens as red, green and blue.

    Args:
        patches: [n, N, D] of a square grid.
        reference: [n, N, 3], the result for another backbone on the same frames; the components are turned (orthogonal
            Procrustes, Schoenemann 1966) towards it, so that a colour means about the same in both pictures.
        counted: bool [n, N], the patches that the components are of, such as those off the border; others become black.

    Returns:
        float [n, N, 3] in 0..1.
    """
    flat = patches.reshape(-1, patches.shape[-1]).astype(np.float64)
    own = slice(None) if counted is None or not counted.any() else counted.reshape(-1)
    flat = flat - flat[own].mean(0)
    _, _, axes = np.linalg.svd(flat[own], full_matrices=False)
    scores = flat @ axes[:3].T
    scores /= scores[own].std(0) + 1e-12
    if reference is not None:
        left, _, right = np.linalg.svd(scores[own].T @ (reference.reshape(-1, 3)[own] - 0.5))
        scores = scores @ left @ right
    # 2.5 standard deviations to either side fill the range; few patches are beyond.
    colours = np.clip(scores / 5 + 0.5, 0, 1).reshape(*patches.shape[:2], 3)
    return colours if isinstance(own, slice) else colours * own.reshape(*patches.shape[:2], 1)


def as_grid(colours: np.ndarray) -> np.ndarray:
    """A square grid of patches, [N, 3] in 0..1, as uint8 RGB [side, side, 3], a pixel a patch."""
    grid = round(len(colours) ** 0.5)
    return np.rint(255 * np.asarray(colours)).astype(np.uint8).reshape(grid, grid, 3)


def patches_inside(content: Content, shape: tuple[int, ...], side: int) -> np.ndarray:
    """bool [side * side]: which patches of a frame of that shape, squeezed to a square, lie in its content for the most
    part; all of them where hardly any does."""
    shown = content_mask(content, *shape[:2]).astype(np.float32)
    inside = cv2.resize(shown, (side, side), interpolation=cv2.INTER_AREA).reshape(-1) > 0.5
    return inside if inside.any() else np.ones_like(inside)


def neighbours_elsewhere(cls: np.ndarray, operations: Sequence[str], queries: Sequence[int], count: int) -> np.ndarray:
    """For each query the `count` nearest frames (cosine) of other operations, int64 [queries, count], nearest first.

    Frames of the query's own operation do not count: they look alike whatever was learned.
    """
    unit = directions(cls)
    names = np.asarray(operations)
    similar = unit[list(queries)] @ unit.T
    similar[names[list(queries)][:, None] == names[None, :]] = -np.inf
    return np.argsort(-similar, axis=1, kind="stable")[:, :count]


def alike_by_phase(
    cls: np.ndarray, operations: Sequence[str], phases: Sequence[str], count: int
) -> tuple[float, float, int]:
    """How often the nearest frames of other operations show a frame's own phase.

    Args:
        cls: [n, D], class tokens.
        phases: of each frame, "" where it is not known; such frames are neither asked nor found.
        count: how many nearest frames are asked for.

    Returns:
        The share of them that show it, the share by chance (of any frames of other operations), and of how many frames
        these are means: those with frames of known phases in other operations.
    """
    known = np.flatnonzero([phase != "" for phase in phases])
    names, labels = np.asarray(operations)[known], np.asarray(phases)[known]
    asked = [i for i in range(len(known)) if (names != names[i]).any()]
    if not asked:
        return float("nan"), float("nan"), 0
    nearest = neighbours_elsewhere(cls[known], names.tolist(), asked, count)
    found, chance = [], []
    for i, row in zip(asked, nearest, strict=True):
        elsewhere = names != names[i]
        own = row[elsewhere[row]]  # fewer than `count` where the others are few
        found.append((labels[own] == labels[i]).mean())
        chance.append((labels[elsewhere] == labels[i]).mean())
    return float(np.mean(found)), float(np.mean(chance)), len(asked)


@torch.no_grad()
def class_attention(model: LoadedBackbone, frames: Sequence[np.ndarray], side: int | None = None) -> np.ndarray | None:
    """Attention of the class token to the patches in the last block, mean over its heads: float [n, N], in multiples
    of what each of all tokens would get if they got alike.

    None for a backbone whose attention is not timm's plain one (rotary positions, say, enter between the layers).
    """
    attention = getattr(model.backbone.vit.blocks[-1], "attn", None)  # timm's parallel blocks have several
    if type(attention) is not timm.layers.Attention:
        return None
    projected: list[Tensor] = []
    hook = attention.qkv.register_forward_hook(lambda _module, _inputs, output: projected.append(output.float()))
    weights = []
    try:
        for start in range(0, len(frames), _BATCH):
            images = _images(model, frames[start : start + _BATCH], side)
            projected.clear()
            patches = model(images).patches.shape[1]
            qkv = projected[-1].reshape(len(images), -1, 3, attention.num_heads, attention.head_dim)
            query, key, _ = qkv.permute(2, 0, 3, 1, 4)
            query, key = attention.q_norm(query), attention.k_norm(key)
            logits = query[:, :, :1] @ key.mT * query.shape[-1] ** -0.5
            weights.append(logits.shape[-1] * logits.softmax(-1)[:, :, 0, -patches:].mean(1))
    finally:
        hook.remove()
    return torch.cat(weights).cpu().numpy()


def over_frame(frame: np.ndarray, weights: np.ndarray, most: float, colours: np.ndarray, side: int) -> np.ndarray:
    """A frame in grey, square, under weights of its patches as heat: uint8 RGB [side, side, 3].

    Args:
        frame: uint8 RGB [H, W, 3].
        weights: [N] of a square grid, from 0.
        most: the weight of the last colour; what is above it has that colour too.
        colours: uint8 [256, 3], of a perceptually uniform map.
    """
    grey = cv2.cvtColor(squared(frame, side), cv2.COLOR_RGB2GRAY)[..., None].astype(np.float32)
    grid = round(len(weights) ** 0.5)
    heat = cv2.resize(weights.reshape(grid, grid).astype(np.float32), (side, side), interpolation=cv2.INTER_LINEAR)
    shown = colours[np.rint(255 * np.clip(heat / most, 0, 1)).astype(np.uint8)]
    return np.clip(0.45 * grey + 0.65 * shown, 0, 255).astype(np.uint8)


def squared(frame: np.ndarray, side: int) -> np.ndarray:
    """The frame as the backbone gets it: squeezed to a square of `side` pixels."""
    return cv2.resize(frame, (side, side), interpolation=cv2.INTER_AREA)


def _images(model: LoadedBackbone, frames: Sequence[np.ndarray], side: int | None) -> Tensor:
    own = model.preprocess
    preprocess = own if side is None else Preprocess(side, own.mean, own.std)
    return preprocess(list(frames)).to(next(model.parameters()).device)
