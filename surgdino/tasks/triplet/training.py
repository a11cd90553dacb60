"""Settings, training stage and predictions of the triplets' multi-label heads (`PooledLinear`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from surgdino.errors import SurgdinoError
from surgdino.metrics.arrays import nanmean
from surgdino.metrics.average_precision import class_ap
from surgdino.metrics.triplet import component_videos
from surgdino.tasks.classifier.frame_inputs import FrameInputs, Inputs, frame_stage
from surgdino.tasks.classifier.multilabel import (
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
from surgdino.tasks.triplet.head import TripletHead
from surgdino.tasks.triplet.settings import TripletSettings
from surgdino.transfers import host_copy

Probabilities = dict[str, np.ndarray]

_FASTER = {"pooled": 1, "query": 5}  # than the task's learning rate: a decoder's queries begin with nothing
_TUNED = {"epochs": 10, "lr": 5e-4, "drop_path": 0.1}


def inputs_of(context: TaskContext, settings: TripletSettings, head: TripletHead) -> FrameInputs:
    """How frames reach the head.

    Raises:
        SurgdinoError: earlier frames are to be seen by a backbone that learns from single pictures.
    """
    if context.learns and settings.frames > 1:
        what = "task.frames needs features that stay as they are"
        raise SurgdinoError(what, place="backbone", expected="frozen", found=context.tuning)
    return FrameInputs(context, "patches" if head.reads_patches else "cls", seen=settings.frames)


def heads_stage(
    context: TaskContext,
    settings: TripletSettings,
    head: TripletHead,
    task_defaults: Mapping[str, Any],
    soft: Mapping[str, np.ndarray] | None = None,
) -> Stage:
    """All heads together, and of the backbone what is to learn; frames with rare triplets are drawn more often.

    Args:
        task_defaults: of the `train` section, for all stages.
        soft: component -> what another head says of the training frames, float32 [n, classes]: soft labels.
    """
    frames = context.parts["train"]
    hard = training_targets(context)
    head.start_at({name: torch.from_numpy(prior_logits(values)) for name, values in hard.items()})
    weights = repeat_factors(hard["IVT"], settings.repeat_threshold)
    inputs, share = inputs_of(context, settings, head), np.float32(settings.soft_labels)
    targets = hard if soft is None else {name: (1 - share) * hard[name] + share * soft[name] for name in hard}
    data, loss = inputs.data(frames, targets, weights), _loss(inputs, settings, hard)
    factor = _FASTER[settings.head]
    given = {"defaults": task_defaults, "frozen": {"lr": factor * task_defaults["lr"]}, "tuned": _TUNED}
    name, validation = "heads" if soft is None else "soft", _validation(inputs, settings, head)
    return frame_stage(name, inputs, head, data, loss, validation, **given, head_factor=factor)


def training_targets(context: TaskContext) -> dict[str, np.ndarray]:
    """Component -> 0/1 [n, classes] of the training frames."""
    truths = context.parts["train"].truths()
    return component_targets(np.concatenate(list(truths.values())), triplet_map_of(context.card))


def soft_labels(context: TaskContext, settings: TripletSettings, head: TripletHead) -> Probabilities:
    """What a trained head says of the training frames, as targets of the next."""
    return _probabilities(context, head, inputs_of(context, settings, head).held(context.parts["train"])())


def predict_probabilities(
    context: TaskContext, settings: TripletSettings, head: TripletHead, frames: LabelledFrames
) -> Iterator[tuple[str, Probabilities]]:
    """(video, component -> float32 [n, classes]), one video at a time; nothing is kept on disk."""
    inputs = inputs_of(context, settings, head)
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


def _validation(inputs: FrameInputs, settings: TripletSettings, head: TripletHead) -> Validate | None:
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
def _probabilities(context: TaskContext, head: TripletHead, tokens: Iterable[Inputs]) -> Probabilities:
    was_training = head.training
    head.eval()
    found: list[dict[str, Tensor]] = []
    for each in tokens:
        with context.autocast():
            logits = head(*each)
        found.append({name: values.float().sigmoid() for name, values in logits.items()})
    head.train(was_training)
    whole = host_copy({name: torch.cat([part[name] for part in found]) for name in found[0]}, copy=False)()
    return {name: values.numpy() for name, values in whole.items()}
