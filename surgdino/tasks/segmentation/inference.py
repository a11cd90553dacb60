"""From frames to masks of the pictures' own size, one picture at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from surgdino.datasets.masks import read_masks
from surgdino.tasks.context import TaskContext
from surgdino.tasks.features.files import FeatureRows
from surgdino.tasks.labelled_frames import LabelledFrames
from surgdino.tasks.segmentation.network import DenseNetwork
from surgdino.tasks.segmentation.pictures import ReadPictures
from surgdino.tasks.segmentation.tally import SegmentationTally
from surgdino.tasks.segmentation.targets import placements
from surgdino.tasks.segmentation.windows import window_logits
from surgdino.tasks.training.batches import load

Masks = Iterator[tuple[str, int, np.ndarray]]


@dataclass(frozen=True)
class Segmenter:
    """How a trained head is asked.

    Attributes:
        context: with the backbone it was trained for.
        head: of `surgdino.tasks.segmentation.heads`, on the context's device.
        layers: whose tokens it reads.
        images: whether it reads the images too.
        window, overlap: side of the sliding window in stored pixels (None: the whole frame at once), and by which share
            windows overlap.
    """

    context: TaskContext
    head: nn.Module
    layers: Sequence[int]
    images: bool
    window: int | None = None
    overlap: float = 0.5

    def masks(self, frames: LabelledFrames, tokens: FeatureRows | None = None) -> Masks:
        """(video id, frame number, bool [C, H, W] of the picture's own size) of each frame, in their order.

        Args:
            frames: labelled or not.
            tokens: of their patches, which saves the backbone; None runs it.
        """
        placed, video_of = placements(frames), frames.video_of
        for i, logits in enumerate(self._logits(frames, tokens)):
            video = video_of[i]
            yield frames.videos[video], int(frames.numbers[i]), placed[video].to_picture(logits)

    def tally(
        self,
        frames: LabelledFrames,
        tokens: FeatureRows | None = None,
        *,
        hd95: bool = True,
        look: Callable[[str, int, np.ndarray], object] | None = None,
    ) -> SegmentationTally:
        """Scores of labelled frames at their own size; only what is labelled counts.

        Args:
            frames: labelled with masks.
            tokens: as for `masks`.
            hd95: whether to compute it.
            look: called with every picture's video, frame number and masks.
        """
        classes = self.context.classes
        tally = SegmentationTally(classes, frames.operations, hd95=hd95)
        for i, (video, number, prediction) in enumerate(self.masks(frames, tokens)):
            if look is not None:
                look(video, number, prediction)
            truth, labelled = read_masks(frames.masks(i), classes)
            tally.add(video, number, truth, prediction, labelled)
        return tally

    @torch.no_grad()
    def _logits(self, frames: LabelledFrames, tokens: FeatureRows | None) -> Iterator[np.ndarray]:
        """float32 [C, h, w] over each stored frame."""
        context = self.context
        network = DenseNetwork(context.backbone, self.head, self.layers).eval()
        if self.window is not None:
            for row in range(len(frames)):
                picture = frames.store.read(int(frames.index[row]))
                yield self._by_windows(network, torch.from_numpy(picture).permute(2, 0, 1)[None]).cpu().numpy()
            return
        size = context.batch_images
        jobs = [np.arange(start, min(start + size, len(frames))) for start in range(0, len(frames), size)]
        reads = ReadPictures(frames, context.preprocess)
        needed = self.images or tokens is None
        pictures = load(reads, jobs, context.workers) if needed else None
        for rows in jobs:
            images = None if pictures is None else context.normalize(next(pictures).to(context.device))
            with context.autocast():
                if tokens is None:
                    assert images is not None
                    logits = network(images)
                else:
                    read = torch.from_numpy(tokens[rows]).to(context.device).float()
                    logits = self.head(read, (context.grid, context.grid), images)
            yield from logits.float().cpu().numpy()

    def _by_windows(self, network: nn.Module, picture: Tensor) -> Tensor:
        context = self.context
        assert self.window is not None

        def answer(windows: Tensor) -> Tensor:
            with context.autocast():
                return network(windows)

        image = context.normalize(picture.to(context.device))
        return window_logits(answer, image, self.window, self.overlap, context.batch_images)
