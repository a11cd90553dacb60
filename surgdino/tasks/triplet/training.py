"""The stage and the predictions of a task with one or more multi-label heads (`PooledLinear`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from surgdino.backbone.vit import Backbone
from surgdino.tasks.context import TaskContext
from surgdino.tasks.features.cache import Extracted
from surgdino.tasks.features.files import FeatureRows
from surgdino.tasks.labelled_frames import LabelledFrames
from surgdino.tasks.training.batches import Batch, FeatureSource, ImageSource, Source
from surgdino.tasks.training.stage import Stage, Validate
from surgdino.tasks.training.tuning import backbone_groups, head_groups
from surgdino.tasks.triplet.balance import positive_weights, prior_logits, repeat_factors
from surgdino.tasks.triplet.head import PooledLinear
from surgdino.tasks.triplet.loss import LossName, multilabel_loss
from surgdino.tasks.triplet.settings import TripletSettings

Probabilities = dict[str, np.ndarray]
# Judges what was found (component -> [n, classes]) on the validation frames; the first number counts.
Judge = Callable[[LabelledFrames, Probabilities], dict[str, float]]

_LAST = (-1,)
_ROWS = 256


class TunedHead(nn.Module):
    """A backbone that learns together with the head over its tokens."""

    def __init__(self, backbone: Backbone, head: PooledLinear) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Normalised images [B, 3, S, S] -> component -> logits."""
        features = self.backbone(images)
        return self.head(features.cls, features.patches)


def multilabel_stage(
    context: TaskContext,
    settings: TripletSettings,
    head: PooledLinear,
    targets: Mapping[str, np.ndarray],
    *,
    rare: str,
    judge: Judge,
    layer_decay: float,
    defaults: Mapping[str, Any],
    loss_weights: Mapping[str, float] | None = None,
) -> Stage:
    """Train the heads, and of the backbone what is to learn.

    Args:
        targets: component -> 0/1 [n, classes] of the training frames.
        rare: the component whose rare classes decide which frames are drawn more often.
        judge: of the validation part.
        layer_decay: factor on the learning rate from one block of the backbone to the one below it.
        defaults: of the `train` section, for this stage.
        loss_weights: component -> factor on its loss; 1 where none is given.
    """
    frames = context.parts["train"]
    head.start_at({name: torch.from_numpy(prior_logits(values)) for name, values in targets.items()})
    often = repeat_factors(targets[rare], settings.repeat_threshold)
    model, source = _learner(context, head, frames, targets, often)
    groups = head_groups(head)
    if context.learns:
        groups += backbone_groups(context.backbone, layer_decay)
    cap = settings.positive_weight_cap
    objective = _Objective(
        context,
        {name: torch.from_numpy(positive_weights(values, cap)).to(context.device) for name, values in targets.items()},
        settings.loss,
        {name: (loss_weights or {}).get(name, 1.0) for name in targets},
    )
    return Stage("heads", model, groups, source, objective, _validation(context, head, judge), defaults)


def predict_probabilities(
    context: TaskContext, head: PooledLinear, frames: LabelledFrames
) -> Iterator[tuple[str, Probabilities]]:
    """(video, component -> float32 [n, classes]), one video at a time; nothing is kept on disk."""
    for video in frames.videos:
        of_video = frames.of_videos([video])
        yield video, _streamed(context, head, of_video)


def _learner(
    context: TaskContext,
    head: PooledLinear,
    frames: LabelledFrames,
    targets: Mapping[str, np.ndarray],
    often: np.ndarray | None,
) -> tuple[nn.Module, Source]:
    """What is trained, and where its batches come from: pictures, or features where the backbone stays as it is."""
    if context.learns:
        source = ImageSource(frames, context.cutter, targets, workers=context.workers, weights=often)
        return TunedHead(context.backbone, head), source
    if not head.reads_patches:
        return head, FeatureSource(context.features.cls(frames), targets, often)
    patches = context.features.patches(frames, _LAST)  # first: it leaves the class tokens behind
    return head, FeatureSource(patches, {"cls": context.features.cls(frames), **targets}, often)


class _Objective:
    """The loss of a batch, component by component."""

    def __init__(
        self, context: TaskContext, positive: Mapping[str, Tensor], name: LossName, weights: Mapping[str, float]
    ) -> None:
        self.context, self.positive, self.name, self.weights = context, positive, name, weights

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        logits = self._logits(model, batch)
        terms = {
            f"loss_{part}": multilabel_loss(logits[part].float(), batch[part], self.name, self.positive[part])
            for part in self.weights
        }
        total = torch.stack([self.weights[part] * terms[f"loss_{part}"] for part in self.weights]).sum()
        return {"loss": total, **terms}

    def _logits(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        if "images" in batch:
            return model(self.context.normalize(batch["images"]))
        if "cls" in batch:
            return model(batch["cls"], batch["features"])
        return model(batch["features"])


def _validation(context: TaskContext, head: PooledLinear, judge: Judge) -> Validate | None:
    frames = context.parts.get("val")
    if frames is None or not len(frames):
        return None
    if context.learns:
        alone = context.alone()
        return lambda model: judge(frames, _streamed(alone, head, frames))
    # Taken here, where all processes meet: extraction is shared among them, validation is not.
    patches = context.features.patches(frames, _LAST) if head.reads_patches else None
    cls = context.features.cls(frames)
    return lambda model: judge(frames, _cached(context, head, cls, patches))


def _cached(context: TaskContext, head: PooledLinear, cls: np.ndarray, patches: FeatureRows | None) -> Probabilities:
    found = []
    for start in range(0, len(cls), _ROWS):
        rows = np.arange(start, min(start + _ROWS, len(cls)))
        tokens = None if patches is None else torch.from_numpy(patches[rows]).to(context.device).float()
        found.append(_probabilities(context, head, torch.from_numpy(cls[rows]).to(context.device), tokens))
    return _joined(found)


def _streamed(context: TaskContext, head: PooledLinear, frames: LabelledFrames) -> Probabilities:
    layers = _LAST if head.reads_patches else None
    stream: Iterator[Extracted] = context.features.stream(frames, layers)
    return _joined([_probabilities(context, head, each.cls, each.patches) for each in stream])


@torch.no_grad()
def _probabilities(context: TaskContext, head: PooledLinear, cls: Tensor, patches: Tensor | None) -> Probabilities:
    was_training = head.training
    head.eval()
    with context.autocast():
        logits = head(cls, patches)
    head.train(was_training)
    return {name: values.float().sigmoid().cpu().numpy() for name, values in logits.items()}


def _joined(parts: list[Probabilities]) -> Probabilities:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
