"""What a probe is given: the frames, their labels, and their features now and at step 0."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from surgdino import console
from surgdino.backbone.preprocess import Preprocess
from surgdino.backbone.vit import Backbone, Features
from surgdino.engine.probing.frames import MaskLabels, ProbeFrames, TaskLabels
from surgdino.transfers import host_copy, uploaded


@dataclass(frozen=True)
class View:
    """All that a probe can read.

    Attributes:
        frames: all of them; those that are not tested only train.
        pictures: uint8 [side, side, 3] each.
        labels: of whole frames, one a task.
        masks: of some frames; None where there are none.
        features: of all frames.
        reference: class tokens and mean patch tokens [t, D] of the tested frames at step 0.
        grid: (rows, columns) of the patches.
    """

    frames: ProbeFrames
    pictures: Sequence[np.ndarray]
    labels: Sequence[TaskLabels]
    masks: MaskLabels | None
    features: ProbeFeatures
    reference: tuple[Tensor, Tensor]
    grid: tuple[int, int]

    @cached_property
    def tested_frames(self) -> ProbeFrames:
        """The tested frames alone, in the order of `cls`."""
        return self.frames.only_tested()

    @cached_property
    def cls(self) -> Tensor:
        """Class tokens [t, D] of the tested frames."""
        return self.features.cls[self._tested]

    @cached_property
    def cls_on_host(self) -> Tensor:
        """Class tokens [n, D] of all frames, for what is computed there."""
        found: Tensor = host_copy(self.features.cls, copy=False)()
        return found

    @cached_property
    def aligned_cls(self) -> Tensor:
        """Class tokens [n, D] of all frames, see `aligned`."""
        return uploaded(aligned(self.cls_on_host.numpy(), self.frames.operations), self.features.cls.device)

    @cached_property
    def mean_patches(self) -> Tensor:
        """Means of the patch tokens [t, D] of the tested frames."""
        return self.features.mean_patches[self._tested]

    @cached_property
    def _tested(self) -> Tensor:
        return uploaded(np.flatnonzero(self.frames.tested), self.features.cls.device)


def aligned(features: np.ndarray, operations: np.ndarray) -> np.ndarray:
    """Features [n, D], every operation's brought to mean 0 and deviation 1 by its own frames.

    It needs no label, but the operation's other frames: a finished recording has them. It removes
    what differs between whole operations (light, camera, patient), which misleads a classifier learnt on others.

    Args:
        features: [n, D], not changed.
        operations: [n], each frame's.
    """
    result = np.empty_like(features)
    for operation in np.unique(operations):
        of_it = operations == operation
        result[of_it] = StandardScaler().fit_transform(features[of_it])
    return result


_BATCH = 32
Autocast = Callable[[], AbstractContextManager]


@dataclass(frozen=True)
class ProbeFeatures:
    """Features of n frames, on the backbone's device.

    Attributes:
        cls, mean_patches: float32 [n, D], class tokens and means of the patch tokens.
        patches: float16 [m, N, D], the patch tokens of the frames at `dense`: all of them would not fit into memory.
        dense: int64 [m], ascending.
        encode: pictures uint8 [side, side, 3] -> patch tokens [b, N, D] of further views, by the same backbone.
    """

    cls: Tensor
    mean_patches: Tensor
    patches: Tensor
    dense: np.ndarray
    encode: Callable[[Sequence[np.ndarray]], Tensor]

    def patches_of(self, rows: np.ndarray) -> Tensor:
        """Patch tokens [len(rows), N, D] of frames that are among `dense`."""
        return self.patches[uploaded(np.searchsorted(self.dense, rows), self.patches.device)]


@torch.no_grad()
def extract(
    backbone: Backbone, pictures: Sequence[np.ndarray], dense: np.ndarray, preprocess: Preprocess, autocast: Autocast
) -> ProbeFeatures:
    """Features of all pictures (uint8 [side, side, 3]), the backbone in evaluation mode, which draws nothing."""
    device = backbone.mask_token.device
    wanted = np.zeros(len(pictures), bool)
    wanted[dense] = True

    def forward(some: Sequence[np.ndarray]) -> Features:
        with torch.no_grad(), autocast():
            return backbone(preprocess(uploaded(np.stack(some), device).permute(0, 3, 1, 2)))

    cls, means, patches = [], [], []
    with console.bar("measuring: features", len(pictures), stays=False) as bar:
        for start in range(0, len(pictures), _BATCH):
            features = forward(pictures[start : start + _BATCH])
            cls.append(features.cls.float())
            means.append(features.patches.float().mean(1))
            of_batch = uploaded(np.flatnonzero(wanted[start : start + _BATCH]), device)
            patches.append(features.patches[of_batch].half())
            bar.advance(len(features.cls))
    return ProbeFeatures(
        torch.cat(cls),
        torch.cat(means),
        torch.cat(patches),
        np.sort(dense),
        lambda some: forward(some).patches.float(),
    )
