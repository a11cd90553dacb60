"""Settings, training stage and predictions of the triplets' multi-label heads (`PooledLinear`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from surgdino.config import MOST, BelowOne, NonNegative
from surgdino.metrics.arrays import nanmean
from surgdino.metrics.average_precision import class_ap
from surgdino.metrics.triplet import component_videos
from surgdino.tasks.classifier.frame_inputs import FrameInputs, Inputs, frame_stage
from surgdino.tasks.classifier.multilabel import (
    LossName,
    multilabel_loss,
    positive_weights,
    prior_logits,
    repeat_factors,
)
from surgdino.tasks.context import TaskContext
from surgdino.tasks.labelled_frames import LabelledFrames
from surgdino.tasks.training.batches import Batch
from surgdino.tasks.training.stage import Loss, Stage, Validate
from surgdino.tasks.triplet.components import PARTS, combined_scores, component_targets, triplet_map_of
from surgdino.tasks.triplet.head import PooledLinear

Probabilities = dict[str, np.ndarray]

_TUNED = {"epochs": 10, "lr": 5e-4, "drop_path": 0.1}


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
    inputs = FrameInputs(context, "patches" if head.reads_patches else "cls")
    data, loss = inputs.data(frames, targets, weights), _loss(inputs, settings, targets)
    given = {"defaults": task_defaults, "frozen": {}, "tuned": _TUNED}
    return frame_stage("heads", inputs, head, data, loss, _validation(inputs, settings, head), **given, head_factor=1)


def predict_probabilities(
    context: TaskContext, head: PooledLinear, frames: LabelledFrames
) -> Iterator[tuple[str, Probabilities]]:
    """(video, component -> float32 [n, classes]), one video at a time; nothing is kept on disk."""
    inputs = FrameInputs(context, "patches" if head.reads_patches else "cls")
    for video in frames.videos:
        yield video, _probabilities(context, head, inputs.streamed(frames.of_videos([video])))


def _loss(inputs: FrameInputs, settings: TripletSettings, targets: Mapping[str, np.ndarray]) -> Loss:
    """The losses of the components, and their sum with the factor `component_loss` on those of the parts."""
    name, cap = settings.loss, settings.positive_weight_cap
    factors = {part: settings.component_loss if part in PARTS else 1.0 for part in targets}
    positive = {
        part: torch.from_numpy(positive_weights(values, cap)).to(inputs.context.device)
        for part, values in targets.items()
    }

    def loss(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        logits = model(*inputs.of_batch(batch))
        terms = {part: multilabel_loss(logits[part].float(), batch[part], name, positive[part]) for part in factors}
        total = torch.stack([factor * terms[part] for part, factor in factors.items()]).sum()
        return {"loss": total, **{f"loss_{part}": term for part, term in terms.items()}}

    return loss


def _validation(inputs: FrameInputs, settings: TripletSettings, head: PooledLinear) -> Validate | None:
    """Video-wise AP, that of the triplets first."""
    context = inputs.context
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

    held = inputs.held(frames)
    return lambda model: judge(_probabilities(context, head, held()))


@torch.no_grad()
def _probabilities(context: TaskContext, head: PooledLinear, tokens: Iterable[Inputs]) -> Probabilities:
    was_training = head.training
    head.eval()
    found: list[Probabilities] = []
    for each in tokens:
        with context.autocast():
            logits = head(*each)
        found.append({name: values.float().sigmoid().cpu().numpy() for name, values in logits.items()})
    head.train(was_training)
    return {name: np.concatenate([part[name] for part in found]) for name in found[0]}
