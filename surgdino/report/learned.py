"""What a backbone sees: its patch features as colours, the nearest frames of other operations, attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from surgdino.backbone.checkpoint import LoadedBackbone
from surgdino.backbone.preprocess import Preprocess
from surgdino.backbone.timm_import import timm
from surgdino.report.blocks import Block, Heading, Paragraph, Picture, Pictures, picture
from surgdino.report.record import RunRecord
from surgdino.report.sections import Section

_BATCH = 16
_SHOWN, _QUERIES, _NEIGHBOURS, _SIDE = 6, 4, 4, 224
# More patches than in training (positions are interpolated): at 14 x 14 an instrument is three squares wide.
_CELLS = 24


@dataclass(frozen=True)
class Sample:
    """Frames to look at: RGB uint8 [H, W, 3] each, the operation of each, and a name such as `video05 12 s`."""

    frames: Sequence[np.ndarray]
    operations: Sequence[str]
    names: Sequence[str]

    def spread(self, count: int) -> list[int]:
        """Positions of `count` frames, one operation after another."""
        by_operation = [
            [i for i, name in enumerate(self.operations) if name == operation]
            for operation in dict.fromkeys(self.operations)
        ]
        rounds = -(-count // len(by_operation))
        chosen = []
        for place in range(count):
            own = by_operation[place % len(by_operation)]
            chosen.append(own[(2 * (place // len(by_operation)) + 1) * len(own) // (2 * rounds)])
        return list(dict.fromkeys(chosen))

    def picture(self, place: int, caption: str | None = None) -> Picture:
        """One frame as a square, under its name or another caption."""
        return picture(_squared(self.frames[place], _SIDE), self.names[place] if caption is None else caption)


class Learned(Section):
    """Pictures of the same frames through both backbones; through the adapted one alone where the other is gone."""

    id, title, order = "learned", "What was learned, in pictures", 25

    def __init__(self, sample: Sample, before: LoadedBackbone | None, after: LoadedBackbone) -> None:
        self.sample = sample
        self.models = {"after": after} if before is None else {"before": before, "after": after}
        self.shown = sample.spread(_SHOWN)

    def of_run(self, record: RunRecord) -> list[Block]:
        """Colours, neighbours, attention."""
        text = "These are frames of the training operations. Handle this file as patient data."
        blocks: list[Block] = [Paragraph(text, note=True)]
        if "before" not in self.models:
            text = "The weights that the run started from were not found, so there are no pictures of before."
            blocks.append(Paragraph(text))
        return [*blocks, *self._components(), *self._neighbours(), *self._attention()]

    def _components(self) -> list[Block]:
        frames = [self.sample.frames[i] for i in self.shown]
        patches = {name: encode(model, frames, _detailed(model))[1] for name, model in self.models.items()}
        after = component_colours(patches["after"])
        pictures = [self.sample.picture(i) for i in self.shown]
        for name in self.models:
            colours = after if name == "after" else component_colours(patches[name], after)
            pictures += [picture(as_picture(each, _SIDE), name) for each in colours]
        text = (
            "Principal components of the patch features, the first three as red, green and blue, computed over these "
            "frames together. The backbone sees patches of equal colour as alike; tissue and instruments should differ."
        )
        return [Heading("Patch features as colours"), Paragraph(text, note=True), Pictures(pictures, len(self.shown))]

    def _neighbours(self) -> list[Block]:
        sample = self.sample
        if len(set(sample.operations)) < 2:
            return []
        queries = sample.spread(_QUERIES)
        found = {
            name: neighbours_elsewhere(encode(model, sample.frames)[0], sample.operations, queries, _NEIGHBOURS)
            for name, model in self.models.items()
        }
        pictures = []
        for place, query in enumerate(queries):
            for name, nearest in found.items():
                pictures.append(sample.picture(query, f"{sample.names[query]}, {name}:"))
                pictures += [sample.picture(i) for i in nearest[place]]
        text = (
            "Left: a frame. Right: the frames of other operations whose class tokens are nearest to its own (cosine)."
        )
        title = Heading("Nearest frames of other operations")
        return [title, Paragraph(text, note=True), Pictures(pictures, 1 + _NEIGHBOURS)]

    def _attention(self) -> list[Block]:
        frames = [self.sample.frames[i] for i in self.shown]
        title = Heading("Attention of the class token")
        pictures: list[Picture] = []
        for name, model in self.models.items():
            attention = class_attention(model, frames, _detailed(model))
            if attention is None:
                return [title, Paragraph("The attention of this architecture cannot be drawn.", note=True)]
            pictures += [
                picture(_over_frame(frame, weights, _SIDE), name)
                for frame, weights in zip(frames, attention, strict=True)
            ]
        text = "What the class token attends to in the last block, mean over its heads; brighter is more."
        return [title, Paragraph(text, note=True), Pictures(pictures, len(self.shown))]


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


def as_picture(colours: np.ndarray, side: int) -> np.ndarray:
    """A square grid of patches, [N, 3] in 0..1, as uint8 RGB [side, side, 3] with the patches' edges kept."""
    grid = round(len(colours) ** 0.5)
    values = np.rint(255 * np.asarray(colours)).astype(np.uint8).reshape(grid, grid, 3)
    return cv2.resize(values, (side, side), interpolation=cv2.INTER_NEAREST)


def neighbours_elsewhere(cls: np.ndarray, operations: Sequence[str], queries: Sequence[int], count: int) -> np.ndarray:
    """For each query the `count` nearest frames (cosine) of other operations, int64 [queries, count], nearest first.

    Frames of the query's own operation do not count: they look alike whatever was learned.
    """
    unit = cls / (np.linalg.norm(cls, axis=1, keepdims=True) + 1e-12)
    names = np.asarray(operations)
    similar = unit[list(queries)] @ unit.T
    similar[names[list(queries)][:, None] == names[None, :]] = -np.inf
    return np.argsort(-similar, axis=1, kind="stable")[:, :count]


@torch.no_grad()
def class_attention(model: LoadedBackbone, frames: Sequence[np.ndarray], side: int | None = None) -> np.ndarray | None:
    """Attention of the class token in the last block: mean over heads, float [n, N], each frame's largest being 1.

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
            weights.append(logits.softmax(-1)[:, :, 0, -patches:].mean(1))
    finally:
        hook.remove()
    found = torch.cat(weights)
    return (found / found.amax(1, keepdim=True).clamp(min=1e-12)).cpu().numpy()


def _over_frame(frame: np.ndarray, weights: np.ndarray, side: int) -> np.ndarray:
    """A frame, square, with attention shown as light: uint8 RGB [side, side, 3]."""
    shown = _squared(frame, side).astype(np.float32)
    grid = round(len(weights) ** 0.5)
    light = cv2.resize(weights.reshape(grid, grid).astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
    light = np.clip(light, 0, 1)[..., None]
    warm = np.array([255, 176, 60], np.float32)
    return np.clip(shown * (0.35 + 0.4 * light) + warm * 0.45 * light, 0, 255).astype(np.uint8)


def _squared(frame: np.ndarray, side: int) -> np.ndarray:
    """The frame as the backbone gets it: squeezed to a square of `side` pixels."""
    return cv2.resize(frame, (side, side), interpolation=cv2.INTER_AREA)


def _detailed(model: LoadedBackbone) -> int:
    """The side in pixels at which the model sees `_CELLS` x `_CELLS` patches."""
    return _CELLS * model.backbone.patch_size


def _images(model: LoadedBackbone, frames: Sequence[np.ndarray], side: int | None) -> Tensor:
    own = model.preprocess
    preprocess = own if side is None else Preprocess(side, own.mean, own.std)
    return preprocess(list(frames)).to(next(model.parameters()).device)
