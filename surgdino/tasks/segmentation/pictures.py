"""Batches for a head over a frozen backbone: tokens from the feature cache, targets from memory, pictures if wanted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from surgdino.backbone.preprocess import Preprocess
from surgdino.tasks.features.files import FeatureRows
from surgdino.tasks.labelled_frames import LabelledFrames
from surgdino.tasks.segmentation.targets import MaskTargets
from surgdino.tasks.training.batches import Batch, Sampling, load


@dataclass
class ReadPictures:
    """Places among the frames in, uint8 [b, 3, S, S] of the whole stored frames out; runs in the workers."""

    frames: LabelledFrames
    preprocess: Preprocess

    def __call__(self, rows: np.ndarray) -> Tensor:
        resize, store = self.preprocess.resize, self.frames.store
        pictures = np.stack([resize(store.read(int(self.frames.index[row]))) for row in rows])
        return torch.from_numpy(pictures).permute(0, 3, 1, 2)


@dataclass
class TokenSource:
    """A stage's source (see `common.sources.Source`) that runs no backbone.

    Batches hold `tokens` float32 [B, N, D * layers], `masks` uint8 [B, C, s, s], `labelled` bool [B, C], `index` [B]
    and, where there is something to read them, `images` uint8 [B, 3, S, S].

    Attributes:
        tokens: of the frames' patches.
        targets: of the same frames.
        pictures: None where the head reads tokens alone.
        workers: processes that read the pictures.
    """

    tokens: FeatureRows
    targets: MaskTargets
    pictures: ReadPictures | None = None
    workers: int = 0

    def __len__(self) -> int:
        return len(self.targets)

    def batches(self, sampling: Sampling, start: int, steps: int) -> Iterator[Batch]:
        """The batches of steps `start` to `steps - 1`."""
        drawn = [np.array(sampling.draw(len(self), step).rows) for step in range(start, steps)]
        images = load(self.pictures, drawn, self.workers) if self.pictures else None
        for rows in drawn:
            batch = {
                "tokens": torch.from_numpy(self.tokens[rows]).float(),
                "masks": torch.from_numpy(self.targets[rows]),
                "labelled": torch.from_numpy(self.targets.labelled[rows]),
                "index": torch.from_numpy(rows),
            }
            yield batch if images is None else {**batch, "images": next(images)}
