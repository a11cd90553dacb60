"""Settings, training stage and predictions of the triplets' multi-label heads (`PooledLinear`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from surgdino.backbone.vit import Backbone
from surgdino.config import MOST, BelowOne, NonNegative
from surgdino.metrics.arrays import nanmean
from surgdino.metrics.triplet import class_ap, component_videos
from surgdino.tasks.context import TaskContext
from surgdino.tasks.features.cache import FeatureCache
from surgdino.tasks.labelled_frames import LabelledFrames
from surgdino.tasks.training.batches import Batch, FrameFeatures, FrameImages, TrainingData
from surgdino.tasks.training.stage import Loss, Stage, Validate
from surgdino.tasks.training.tuning import head_groups, tuned_groups
from surgdino.tasks.triplet.components import PARTS, combined_scores, component_targets, triplet_map_of
from surgdino.tasks.triplet.head import PooledLinear
from surgdino.tasks.triplet.loss import LossName, multilabel_loss, positive_weights, prior_logits, repeat_factors

Probabilities = dict[str, np.ndarray]
# Class tokens [b, D] and patches [b, N, D], block by block.
Tokens = Iterable[tuple[Tensor, Tensor | None]]

_TUNED = {"epochs": 10, "lr": 5e-4, "drop_path": 0.1}
_LAST = (-1,)
_ROWS = 256


@dataclass(frozen=True)
class TripletSettings:
    """The `task` section; configs/task/triplet.yaml explains every key."""

    name: str
    pool_heads: Annotated[int, Field(ge=0, le=64)]
    dropout: BelowOne
    loss: LossName
    positive_weight_cap: Annotated[float, Field(ge=1, le=MOST)]
    repeat_threshold: BelowOne
    component_loss: NonNegative
    component_weight: NonNegative


class TunedHead(nn.Module):
    """A backbone that learns together with the head over its tokens."""

    def __init__(self, backbone: Backbone, head: PooledLinear) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Normalised images [B, 3, S, S] -> component -> logits."""
        features = self.backbone(images)
        return self.head(features.cls, features.patches)


def heads_stage(
    context: TaskContext, settings: TripletSettings, head: PooledLinear, task_defaults: Mapping[str, Any]
) -> Stage:
    """All heads together, and of the backbone what is to learn; frames with rare triplets are drawn more often.

    Args:
        task_defaults: of the `train` section, for all stages.
    """
    frames, mapping = context.parts["train"], triplet_map_of(context.card)
    targets = component_targets(np.concatenate(list(frames.truths().values())), mapping)
    head.start_at({name: torch.from_numpy(prior_logits(values)) for name, values in targets.items()})
    weights = repeat_factors(targets["IVT"], settings.repeat_threshold)
    model: nn.Module = head
    groups, defaults = head_groups(head), {}
    data: TrainingData
    if context.learns:
        model, defaults = TunedHead(context.backbone, head), _TUNED
        groups = tuned_groups(head, context.backbone, context.train, task_defaults, defaults, head_factor=1)
        data = FrameImages(frames, context.cutter, targets, workers=context.workers, weights=weights)
    elif head.reads_patches:
        patches = context.features.patches(frames, _LAST)  # first: this call keeps the class tokens too
        data = FrameFeatures(patches, {"cls": context.features.cls(frames), **targets}, weights)
    else:
        data = FrameFeatures(context.features.cls(frames), targets, weights)
    loss = _loss(context, settings, head, targets)
    return Stage("heads", model, groups, data, loss, _validation(context, settings, head), defaults)


def predict_probabilities(
    context: TaskContext, head: PooledLinear, frames: LabelledFrames
) -> Iterator[tuple[str, Probabilities]]:
    """(video, component -> float32 [n, classes]), one video at a time; nothing is kept on disk."""
    for video in frames.videos:
        yield video, _probabilities(context, head, _streamed(context.features, head, frames.of_videos([video])))


def _loss(
    context: TaskContext, settings: TripletSettings, head: PooledLinear, targets: Mapping[str, np.ndarray]
) -> Loss:
    """The losses of the components, and their sum with the factor `component_loss` on those of the parts."""
    name, cap = settings.loss, settings.positive_weight_cap
    factors = {part: settings.component_loss if part in PARTS else 1.0 for part in targets}
    positive = {
        part: torch.from_numpy(positive_weights(values, cap)).to(context.device) for part, values in targets.items()
    }

    def loss(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        if context.learns:
            logits = model(context.normalize(batch["images"]))
        elif head.reads_patches:
            logits = model(batch["cls"], batch["features"])
        else:
            logits = model(batch["features"])
        terms = {part: multilabel_loss(logits[part].float(), batch[part], name, positive[part]) for part in factors}
        total = torch.stack([factor * terms[part] for part, factor in factors.items()]).sum()
        return {"loss": total, **{f"loss_{part}": term for part, term in terms.items()}}

    return loss


def _validation(context: TaskContext, settings: TripletSettings, head: PooledLinear) -> Validate | None:
    """Video-wise AP, that of the triplets first."""
    frames, mapping = context.parts.get("val"), triplet_map_of(context.card)
    if frames is None or not len(frames):
        return None

    def judge(probabilities: Probabilities) -> dict[str, float]:
        scores = combined_scores(probabilities, mapping, settings.component_weight)
        by_video = {video: scores[frames.span(place)] for place, video in enumerate(frames.videos)}
        found = {}
        for name in ("IVT", *PARTS):
            videos = component_videos(frames.truths(), by_video, mapping, name)
            found[f"AP_{name}"] = float(nanmean(class_ap(videos, pooled=False)(np.arange(len(videos)))))
        return found

    if context.learns:
        features = context.features.alone()
        return lambda model: judge(_probabilities(context, head, _streamed(features, head, frames)))
    # Read here, where all processes meet: they share the extraction, but the main process validates alone.
    patches = context.features.patches(frames, _LAST) if head.reads_patches else None
    cls = context.features.cls(frames)

    def tokens() -> Tokens:
        for start in range(0, len(cls), _ROWS):
            rows = np.arange(start, min(start + _ROWS, len(cls)))
            of_patches = None if patches is None else torch.from_numpy(patches[rows]).to(context.device).float()
            yield torch.from_numpy(cls[rows]).to(context.device), of_patches

    return lambda model: judge(_probabilities(context, head, tokens()))


def _streamed(features: FeatureCache, head: PooledLinear, frames: LabelledFrames) -> Tokens:
    return ((each.cls, each.patches) for each in features.stream(frames, _LAST if head.reads_patches else None))


@torch.no_grad()
def _probabilities(context: TaskContext, head: PooledLinear, tokens: Tokens) -> Probabilities:
    was_training = head.training
    head.eval()
    found: list[Probabilities] = []
    for cls, patches in tokens:
        with context.autocast():
            logits = head(cls, patches)
        found.append({name: values.float().sigmoid().cpu().numpy() for name, values in logits.items()})
    head.train(was_training)
    return {name: np.concatenate([part[name] for part in found]) for name in found[0]}
