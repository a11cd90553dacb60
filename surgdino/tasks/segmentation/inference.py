"""From frames to masks of the images' own size: the network, sliding windows, and what a trained head predicts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import expit, softmax
from torch import Tensor, nn

from surgdino.backbone.vit import Backbone
from surgdino.crops.workers import load
from surgdino.datasets.masks import read_truth
from surgdino.tasks.context import TaskContext
from surgdino.tasks.features.cache import ReadFrames
from surgdino.tasks.features.files import FeatureRows
from surgdino.tasks.labelled_frames import LabelledFrames
from surgdino.tasks.segmentation.carry import Smoother
from surgdino.tasks.segmentation.heads import DenseHead
from surgdino.tasks.segmentation.tally import SegmentationTally
from surgdino.tasks.segmentation.targets import placements
from surgdino.transfers import fetched, uploaded

Masks = Iterator[tuple[str, int, np.ndarray]]


class DenseNetwork(nn.Module):
    """A backbone and a head over its tokens; the backbone learns where its parameters require a gradient."""

    def __init__(self, backbone: Backbone, head: DenseHead) -> None:
        super().__init__()
        self.backbone, self.head, self.layers = backbone, head, head.layers(backbone.depth)
        self._learns = any(parameter.requires_grad for parameter in backbone.parameters())

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, C, h, w] of normalised images [B, 3, H, W]."""
        with torch.set_grad_enabled(self._learns and torch.is_grad_enabled()):
            found = self.backbone.intermediate(images, self.layers)
        tokens = torch.cat([each.patches for each in found], dim=2)
        patch = self.backbone.patch_size
        return self.head(tokens, (images.shape[2] // patch, images.shape[3] // patch), images)

    def train(self, mode: bool = True) -> DenseNetwork:
        """A frozen backbone stays in evaluation mode."""
        super().train(mode)
        if not self._learns:
            self.backbone.eval()
        return self


def window_logits(
    network: Callable[[Tensor], Tensor], image: Tensor, window: int, overlap: float, batch: int
) -> Tensor:
    """Logits of a whole image from overlapping windows, those in the middle of a window counting more (MONAI).

    Args:
        network: normalised images [B, 3, window, window] -> logits [B, C, h, w].
        image: normalised [1, 3, H, W]; a smaller one is padded.
        window: side in pixels.
        overlap: share of a window that the next one covers again.
        batch: windows at a time.

    Returns:
        float32 [C, H, W].
    """
    from monai.inferers import sliding_window_inference  # takes seconds, and only windows need it

    def answer(windows: Tensor) -> Tensor:
        return F.interpolate(network(windows).float(), size=(window, window), mode="bilinear", align_corners=False)

    with torch.no_grad():
        found = sliding_window_inference(image, (window, window), batch, answer, overlap=overlap, mode="gaussian")
    assert isinstance(found, Tensor)  # one output in, one out
    return found[0]


@dataclass(frozen=True)
class Segmenter:
    """A trained head with the backbone that it was trained for.

    Attributes:
        context: of the task, with the backbone.
        head: on the context's device.
        window, overlap: side of the sliding window in stored pixels (None: the whole frame at once), and by which share
            windows overlap.
        exclusive: whether a pixel has one class or none, background being the first plane.
        smooth: whether each frame of a video is drawn towards what those before it say of its patches.
        others: whose probabilities are averaged with those of this one: other views, or other runs.
    """

    context: TaskContext
    head: DenseHead
    window: int | None = None
    overlap: float = 0.5
    exclusive: bool = False
    smooth: bool = False
    others: Sequence[Segmenter] = ()

    def tokens(self, frames: LabelledFrames) -> FeatureRows | None:
        """Of labelled frames' patches, computed once, where they stay as they are and are looked at whole."""
        # Frames without labels are predicted once: their tokens are not worth keeping.
        if self.context.learns or self.window is not None or frames.labels is None:
            return None
        return self.context.features.patches(frames, self.head.layers(self.context.backbone.depth))

    def masks(self, frames: LabelledFrames, tokens: FeatureRows | None = None) -> Masks:
        """(video id, frame number, bool [C, H, W] of the image's own size) of each frame, in their order.

        Args:
            frames: labelled or not.
            tokens: of their patches, which saves the backbone; None runs it.
        """
        placed, video_of = placements(frames), frames.video_of
        smoother = Smoother(self.context, frames) if self.smooth else None
        streams = [self.logits(frames, tokens), *(each.logits(frames, each.tokens(frames)) for each in self.others)]
        for i, logits in enumerate(zip(*streams, strict=True)):
            video = video_of[i]
            planes = [placed[video].enlarged(each) for each in logits]
            inside = self._decided(planes, None if smoother is None else partial(smoother, i))
            yield frames.videos[video], int(frames.numbers[i]), placed[video].to_picture(inside)

    def _decided(
        self, planes: Sequence[np.ndarray], smooth: Callable[[np.ndarray], np.ndarray] | None = None
    ) -> np.ndarray:
        """bool [C, h, w], from the logits [planes, h, w] of each that is asked: of several the mean probability."""
        if len(planes) == 1 and smooth is None:
            [total], even = planes, 0.0
        else:
            total = np.mean([softmax(each, 0) if self.exclusive else expit(each) for each in planes], 0)
            total, even = total if smooth is None else smooth(total), 0.5
        if self.exclusive:
            return total.argmax(0) == np.arange(1, len(total))[:, None, None]
        return total > even

    def tally(
        self,
        frames: LabelledFrames,
        tokens: FeatureRows | None = None,
        *,
        hd95: bool = True,
        on_image: Callable[[str, int, np.ndarray], object] | None = None,
    ) -> SegmentationTally:
        """Scores of labelled frames at their own size; only what is labelled counts.

        Args:
            frames: labelled with masks.
            tokens: as for `masks`.
            hd95: whether to compute it.
            on_image: called with every image's video, frame number and masks.
        """
        classes = self.context.classes
        tally = SegmentationTally(classes, frames.operations, hd95=hd95)
        for i, (video, number, prediction) in enumerate(self.masks(frames, tokens)):
            if on_image is not None:
                on_image(video, number, prediction)
            truth, labelled, known = read_truth(frames.masks(i), classes)
            tally.add(video, number, truth, prediction, labelled, valid=known)
        return tally

    def logits(self, frames: LabelledFrames, tokens: FeatureRows | None = None) -> Iterator[np.ndarray]:
        """float32 [planes, h, w] over each stored frame, as it lies there whatever the view."""
        turned = slice(None, None, -1 if self.context.view.mirrored else 1)
        for logits in fetched(self._seen(frames, tokens)):
            yield from (np.ascontiguousarray(each[..., turned]) for each in logits.numpy())

    @torch.no_grad()
    def _seen(self, frames: LabelledFrames, tokens: FeatureRows | None) -> Iterator[Tensor]:
        """float32 [b, planes, h, w] as the view has them, on the device."""
        context, view = self.context, self.context.view
        network = DenseNetwork(context.backbone, self.head).eval()

        def answer(images: Tensor) -> Tensor:
            with context.autocast():
                return network(images)

        if self.window is not None:
            for index in frames.index.tolist():
                stored = frames.store.read(index)[:, :: -1 if view.mirrored else 1]
                if view.scale != 1:
                    stored = cv2.resize(stored, None, fx=view.scale, fy=view.scale, interpolation=cv2.INTER_LINEAR)
                image = torch.from_numpy(np.ascontiguousarray(stored)).permute(2, 0, 1)[None]
                image = context.normalize(uploaded(image, context.device))
                yield window_logits(answer, image, self.window, self.overlap, context.batch_images)[None]
            return
        size, grid = context.batch_images, (context.grid, context.grid)
        jobs = [np.arange(start, min(start + size, len(frames))) for start in range(0, len(frames), size)]
        needed = self.head.reads_images or tokens is None
        places = [frames.index[rows] for rows in jobs] if needed else []
        reader = ReadFrames(frames.store, context.preprocess)
        read = load(reader, places, context.workers, context.on_gpu, result_bytes=reader.bytes_of(size))
        for rows in jobs:
            images = context.normalize(next(read).to(context.device, non_blocking=True)) if needed else None
            if tokens is None:
                assert images is not None
                logits = answer(images)
            else:
                of_patches = uploaded(tokens[rows], context.device).float()
                with context.autocast():
                    logits = self.head(of_patches, grid, images)
            yield logits.float()
