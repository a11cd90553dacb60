"""The crops of a batch as the methods see them, and the tokens that student and teacher compute of them.

Symbols: b images, 2 global and L local views, D the backbone's width, M masked patches.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from surgdino.backbone.preprocess import normalize
from surgdino.backbone.vit import Backbone, Features
from surgdino.crops.loader import Batch
from surgdino.crops.settings import GLOBAL_VIEWS


@dataclass
class Views:
    """Normalised crops of B images on the device, view-major: all images' first view, then all images' second.

    Attributes:
        global_crops: float [2B, 3, S, S].
        local_crops: float [LB, 3, s, s]; L may be 0.
        masks: bool [2B, N], True where the student sees the mask token.
        masked: int64 [M], where those are in the flattened [2B * N].
        mask_weight: float [M], one over the number of masked patches of the same view.
        images: B.
        first: the place of the first of them in the step's batch.
        facts: name -> [2, all images of the step], what guides read; see `surgdino.crops.loader.Batch`.
        clean: float [2B, 3, T, T], the global crops as they were cut and flipped; empty where nobody asks.
        anchor: [2B, N, D], a frozen backbone's patch tokens of those; None: nothing is anchored.
    """

    global_crops: Tensor
    local_crops: Tensor
    masks: Tensor
    masked: Tensor
    mask_weight: Tensor
    images: int
    first: int = 0
    facts: Mapping[str, Tensor] = field(default_factory=dict)
    clean: Tensor = field(default_factory=lambda: torch.empty(0, 3, 1, 1))
    anchor: Tensor | None = None


def to_views(
    batch: Batch, device: torch.device, mean: Sequence[float], std: Sequence[float], part: slice | None = None
) -> Views:
    """Move a loader's batch, or the images `part` of it, and normalise it there.

    What is moved is contiguous and was pinned by the loader, part by part: any other copy makes the host wait.
    """
    images = len(batch.global_crops) // GLOBAL_VIEWS
    part = part or slice(0, images)

    def move(tensor: Tensor) -> Tensor:
        return tensor.to(device, non_blocking=True)

    def move_part(crops: Tensor) -> Tensor:
        if part == slice(0, images) or not len(crops):
            return move(crops)
        return torch.cat([move(view[part]) for view in by_view(crops, images)])

    masks = move_part(batch.masks)
    ends = [0, *accumulate(batch.mask_counts)]
    masked, weights = [], []
    for view in range(GLOBAL_VIEWS):
        first, last = view * images + part.start, view * images + part.stop
        entries = slice(ends[first], ends[last])
        masked.append(move(batch.masked[entries]) - (first - view * (last - first)) * masks.shape[1])
        weights.append(move(batch.mask_weight[entries]))
    return Views(
        global_crops=normalize(move_part(batch.global_crops), mean, std),
        local_crops=normalize(move_part(batch.local_crops), mean, std),
        masks=masks,
        masked=torch.cat(masked),
        mask_weight=torch.cat(weights),
        images=part.stop - part.start,
        first=batch.first + part.start,
        facts={name: move(values) for name, values in batch.facts.items()},
        clean=normalize(move_part(batch.clean), mean, std),
    )


def on_grid(patches: Tensor, grid: tuple[int, int]) -> Tensor:
    """Patch tokens [n, M, D] of square crops, brought to another grid of N: fp32 [n, N, D]; as they are on the same.

    Bicubic, without antialiasing, as DINOv3 brings those of larger crops to the student's (arXiv 2508.10104).
    """
    side = math.isqrt(patches.shape[1])
    if (side, side) == grid:
        return patches
    maps = patches.float().mT.unflatten(2, (side, side))  # [n, D, M]
    return F.interpolate(maps, size=grid, mode="bicubic").flatten(2).mT


def by_view(tokens: Tensor, images: int) -> Tensor:
    """[V * B, ...] in view-major order as [V, B, ...]."""
    return tokens.unflatten(0, (-1, images))


def seed_step(seed: int, step: int, rank: int, micro_batch: int = 0) -> None:
    """Make everything random in a pass (stochastic depth) a function of the seed, step, process and micro-batch alone.

    So there is no random-number state to save, and a resumed run draws what an uninterrupted one would have.
    """
    entropy = np.random.SeedSequence((seed, step, rank, micro_batch))
    torch.manual_seed(int(entropy.generate_state(1, np.uint64)[0]))


# The backbone takes the places of the patches that are read: its last block computes no others.


def teacher_tokens(backbone: Backbone, views: Views) -> Features:
    """Of the whole global views: `cls` [2b, D], and `patches` [M, D] where the student's views are masked."""
    [features] = backbone.forward_crops([(views.global_crops, None)], wanted=[views.masked])
    return features


def student_tokens(backbone: Backbone, views: Views, dense: bool = False) -> Features:
    """`cls` [(2 + L) b, D] of the masked global and the local views, view-major; `patches` [M, D] that are masked.

    Args:
        dense: `patches` are all [2b * N, D] of the global views.
    """
    crops: list[tuple[Tensor, Tensor | None]] = [(views.global_crops, views.masks)]
    every = torch.arange(views.masks.numel(), device=views.masks.device) if dense else None
    wanted: list[Tensor | None] = [views.masked if every is None else every]
    if len(views.local_crops):
        crops.append((views.local_crops, None))
        wanted.append(None)
    features = backbone.forward_crops(crops, wanted=wanted)
    return Features(torch.cat([each.cls for each in features]), features[0].patches)


def global_class_tokens(backbone: Backbone, views: Views) -> Tensor:
    """`cls` [2b, D] of the masked global views alone, with the same paths dropped as in `student_tokens`."""
    [features] = backbone.forward_crops([(views.global_crops, views.masks)], wanted=[views.masked])
    return features.cls
