"""What a probe is given: the frames, their labels, and their features now and at step 0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from surgdino.engine.probing.features import ProbeFeatures
from surgdino.engine.probing.frames import ProbeFrames
from surgdino.engine.probing.labels import MaskLabels, TaskLabels


@dataclass(frozen=True)
class View:
    """Everything there is to measure.

    Attributes:
        frames: all of them; those that are not tested only teach.
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
        return self.features.cls[np.flatnonzero(self.frames.tested)]

    @cached_property
    def aligned_cls(self) -> Tensor:
        """Class tokens [n, D] of all frames, see `aligned`."""
        return torch.from_numpy(aligned(self.features.cls.numpy(), self.frames.operations))

    @cached_property
    def mean_patches(self) -> Tensor:
        """Means of the patch tokens [t, D] of the tested frames."""
        return self.features.mean_patches[np.flatnonzero(self.frames.tested)]


def aligned(features: np.ndarray, operations: np.ndarray) -> np.ndarray:
    """Features [n, D], every operation's brought to mean 0 and deviation 1 by its own frames.

    No label is needed for it, but the operation's other frames are: what a finished recording has. It takes away by
    what operations differ as a whole (light, camera, patient), which a classifier learnt on others trips over.

    Args:
        features: [n, D], not changed.
        operations: [n], each frame's.
    """
    result = np.empty_like(features)
    for operation in np.unique(operations):
        of_it = operations == operation
        result[of_it] = StandardScaler().fit_transform(features[of_it])
    return result
