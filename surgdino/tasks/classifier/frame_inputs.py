"""How frames reach a head that judges each by itself: features of a frozen backbone, or pictures where it learns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from surgdino import console
from surgdino.tasks.classifier.head import TunedHead
from surgdino.tasks.context import TaskContext
from surgdino.tasks.features.cache import Extracted, FeatureCache, pool
from surgdino.tasks.labelled_frames import LabelledFrames
from surgdino.tasks.settings import Tokens
from surgdino.tasks.training.batches import Batch, FrameFeatures, FrameImages, Rows, TrainingData
from surgdino.tasks.training.stage import Loss, Stage, Validate
from surgdino.tasks.training.tuning import head_groups, tuned_groups
from surgdino.transfers import uploaded

# Class tokens [B, D]; those with the mean of the patch tokens beside them [B, 2D]; or class and patch tokens [B, N, D].
# Where earlier frames are seen too, class tokens are [B, K, D], the frame's own last.
Reads = Literal["cls", "pooled", "patches"]
Inputs = tuple[Tensor, ...]
_LAST = (-1,)
_ROWS = 256


def reads_of(tokens: Tokens) -> Reads:
    """What a `FrameClassifier` of these tokens is called with."""
    return "patches" if tokens == "attentive" else "pooled"


def earlier_frames(frames: LabelledFrames, seen: int) -> np.ndarray:
    """int64 [n, seen], places of the labelled frames that end with each frame; before a video's first stands itself."""
    firsts = frames.starts[:-1][frames.video_of]
    places = np.arange(len(frames))[:, None] - np.arange(seen)[::-1]
    return np.maximum(places, firsts[:, None])


@dataclass(frozen=True)
class _Together:
    """Rows [n, K, D]: those at `places` [n, K] of `rows` [m, D], gathered when they are read."""

    rows: np.ndarray
    places: np.ndarray

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, positions: Any, /) -> np.ndarray:
        return self.rows[self.places[positions]]


@dataclass(frozen=True)
class FrameInputs:
    """What a head is called with: `head(*inputs)`, or `TunedHead(...)(*inputs)` in the training of a backbone.

    Attributes:
        reads: which tokens.
        adjust: of features that are no patch tokens, such as an alignment: (rows, their frames) -> rows.
        seen: K, frames whose class tokens are read: the frame and those labelled before it; more than 1 of a frozen
            backbone alone.
    """

    context: TaskContext
    reads: Reads
    adjust: Callable[[np.ndarray, LabelledFrames], np.ndarray] | None = None
    seen: int = 1

    def data(
        self, frames: LabelledFrames, targets: Mapping[str, np.ndarray], weights: np.ndarray | None = None
    ) -> TrainingData:
        """What a stage learns from. Patch tokens that have no room on the disk are computed anew for each batch.

        Args:
            targets: by their names in a batch, [n, ...].
            weights: see `TrainingData`.
        """
        context, features = self.context, self.context.features
        if context.learns:
            return FrameImages(frames, context.cutter, targets, workers=context.workers, weights=weights)
        if self.reads != "patches":
            return FrameFeatures(self.rows(frames), targets, weights)
        if features.fits(frames, _LAST):
            patches = features.patches(frames, _LAST)  # first: this call keeps the class tokens too
            return FrameFeatures(patches, {"cls": self._cls(frames), **targets}, weights)
        console.warn(f"the patch tokens of {len(frames):,} frames have no room on the disk: computed for each batch")
        return FrameFeatures(self._cls(frames), targets, weights, (frames, context.preprocess), context.workers)

    def of_batch(self, batch: Batch) -> Inputs:
        """Of a batch of `data`, on the device."""
        if self.context.learns:
            return (self.context.normalize(batch["images"]),)
        if self.reads != "patches":
            return (batch["features"],)
        if "images" in batch:
            return batch["features"], self.context.features.dense(batch["images"])
        return batch["cls"], batch["features"]

    def held(self, frames: LabelledFrames) -> Callable[[], Iterator[Inputs]]:
        """A function that gives the inputs of all frames, in their order, as often as it is called.

        All processes call this method; the function may be called by one.
        """
        features, device = self.context.features, self.context.device
        if self.context.learns or (self.reads == "patches" and not features.fits(frames, _LAST)):
            alone = features.alone()
            return lambda: self.streamed(frames, alone)
        if self.reads != "patches":
            rows = uploaded(self.rows(frames), device)
            return lambda: ((rows[frames.span(place)],) for place in range(len(frames.videos)))
        patches, cls = features.patches(frames, _LAST), self._cls(frames)

        def blocks() -> Iterator[Inputs]:
            for start in range(0, len(cls), _ROWS):
                at = np.arange(start, min(start + _ROWS, len(cls)))
                yield uploaded(cls[at], device), uploaded(patches[at], device).float()

        return blocks

    def streamed(self, frames: LabelledFrames, features: FeatureCache | None = None) -> Iterator[Inputs]:
        """The same once, in blocks, with nothing kept on the disk."""
        features = features or self.context.features
        found = features.stream(frames, _LAST if self.reads == "patches" else None)
        if self.seen == 1:
            yield from map(self._of_extracted, found)
            return
        earlier, done = earlier_frames(frames, self.seen), 0
        kept = torch.empty(0, self.context.width, device=self.context.device)  # class tokens of the last frames
        for part in found:
            kept = torch.cat([kept, part.cls.float()])
            end = done + len(part.cls)
            places = uploaded(earlier[done:end] - (end - len(kept)), kept.device)
            _, *others = self._of_extracted(part)
            yield kept[places], *others
            kept, done = kept[-(self.seen - 1) :], end

    def rows(self, frames: LabelledFrames) -> np.ndarray:
        """float32 [n, D] or [n, 2D], of a head that reads no patch tokens."""
        found = self._cls(frames)[:] if self.reads == "cls" else self.context.features.pooled(frames)
        return found if self.adjust is None else self.adjust(found, frames)

    def _cls(self, frames: LabelledFrames) -> Rows:
        rows = self.context.features.cls(frames)
        return rows if self.seen == 1 else _Together(rows, earlier_frames(frames, self.seen))

    def _of_extracted(self, found: Extracted) -> Inputs:
        if self.reads == "patches":
            return found.cls, found.patches.float()
        return (found.cls if self.reads == "cls" else pool(found),)


def frame_stage(
    name: str,
    inputs: FrameInputs,
    head: nn.Module,
    data: TrainingData,
    loss: Loss,
    validate: Validate | None,
    *,
    defaults: Mapping[str, Any],
    frozen: Mapping[str, Any],
    tuned: Mapping[str, Any],
    head_factor: float,
) -> Stage:
    """The stage of a head of single frames, together with what learns of the backbone.

    Args:
        defaults: of the `train` section, for all stages of the task; `frozen` and `tuned` for this one.
        head_factor: how much faster the head learns than the backbone.
    """
    context = inputs.context
    if not context.learns:
        return Stage(name, head, head_groups(head), data, loss, validate, frozen)
    groups = tuned_groups(head, context.backbone, context.train, defaults, tuned, head_factor=head_factor)
    return Stage(name, TunedHead(context.backbone, head), groups, data, loss, validate, tuned)
