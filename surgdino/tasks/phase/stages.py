"""What phase recognition trains: a classifier of single frames, then a temporal model over whole videos."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from surgdino import distributed
from surgdino.errors import SurgdinoError
from surgdino.metrics.phase import script_scores, strict_counts
from surgdino.tasks.classifier.frame_inputs import FrameInputs, frame_stage, reads_of
from surgdino.tasks.context import TaskContext
from surgdino.tasks.features.files import FeatureRows
from surgdino.tasks.labelled_frames import LabelledFrames
from surgdino.tasks.phase.head import OverVideo, PhaseHead
from surgdino.tasks.phase.loss import frame_loss, median_frequency_weights, stages_loss
from surgdino.tasks.phase.settings import PhaseSettings
from surgdino.tasks.training.batches import Batch, WholeVideos
from surgdino.tasks.training.stage import Stage, Validate
from surgdino.tasks.training.tuning import head_groups
from surgdino.transfers import host_copy, uploaded

DEFAULTS = {"epochs": 10, "batch_size": 64, "lr": 1e-3, "weight_decay": 0.01, "patience": 10}
_FROZEN = {"epochs": 20, "batch_size": 256, "lr": 2e-3}
_TUNED = {"lr": 1e-4, "epochs": 5, "patience": 3, "drop_path": 0.1}
_TEMPORAL = {"epochs": 100, "lr": 5e-4, "warmup": 0.02, "patience": 20}
_BLOCK = 4096  # frames whose features are read at a time


def inputs_of(context: TaskContext, settings: PhaseSettings) -> FrameInputs:
    """How frames reach the classifier."""
    return FrameInputs(context, reads_of(settings.tokens), aligned if settings.align else None)


def classifier_stage(context: TaskContext, settings: PhaseSettings, head: PhaseHead, name: str = "frame") -> Stage:
    """The classifier of single frames, together with what learns of the backbone."""
    train, weights = context.parts["train"], _class_weights(context, settings)
    inputs, frames = inputs_of(context, settings), context.parts.get("val")

    def loss(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        return {"loss": frame_loss(model(*inputs.of_batch(batch)), batch["targets"], weights)}

    def validation(frames: LabelledFrames) -> Validate:
        held = inputs.held(frames)

        def validate(_: nn.Module) -> dict[str, float]:
            logits = torch.cat([head.frame(*each) for each in held()])
            return _scores(context, {video: logits[frames.span(k)] for k, video in enumerate(frames.videos)})

        return validate

    data, validate = inputs.data(train, {"targets": train.class_ids()}), validation(frames) if frames else None
    given = {"defaults": DEFAULTS, "frozen": _FROZEN, "tuned": _TUNED}
    return frame_stage(name, inputs, head.frame, data, loss, validate, **given, head_factor=10)


def temporal_stage(context: TaskContext, settings: PhaseSettings, head: PhaseHead, name: str = "temporal") -> Stage:
    """The temporal model, one whole video a step and process, as in TeCNO."""
    train, weights = context.parts["train"], _class_weights(context, settings)
    validation = _validation_features(context, settings, head)

    def loss(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        return stages_loss(model(batch["features"][0]), batch["targets"][0], weights, settings.smoothing)

    def validate(model: nn.Module) -> dict[str, float]:
        return _scores(context, {video: model(pooled)[-1] for video, pooled in validation.items()})

    model = OverVideo(head)
    defaults = {**_TEMPORAL, **model.temporal.TRAINING}
    source = WholeVideos(pooled_features(context, settings, head, train), train, train.class_ids())
    chosen = {"epochs": settings.temporal_epochs, "lr": settings.temporal_lr}
    overrides = {key: value for key, value in chosen.items() if value is not None}
    overrides["batch_size"] = distributed.world_size()
    groups = head_groups(model)
    return Stage(name, model, groups, source, loss, validate if validation else None, defaults, overrides)


def level_of(rows: np.ndarray | FeatureRows, span: slice) -> StandardScaler:
    """The mean and deviation of the features [n, D] of the video at `span`; its `transform` brings them to 0 and 1.

    What videos differ by as a whole (light, camera, patient) is in every frame's features, and a classifier that learnt
    from a few videos fails on the next because of it. No label is needed to remove it, but the whole recording is. A
    feature that is the same in all frames keeps its scale. Read block by block: the video need not fit into memory.
    """
    if span.stop - span.start == 1:
        what, fix = "task.align needs videos of several frames", "leave it out, or train with task.align=false"
        raise SurgdinoError(what, found="a video of one labelled frame", fix=fix)
    level = StandardScaler()
    for start in range(span.start, span.stop, _BLOCK):
        level.partial_fit(np.asarray(rows[start : min(start + _BLOCK, span.stop)], np.float64))
    return level


def aligned(pooled: np.ndarray, frames: LabelledFrames) -> np.ndarray:
    """float32 [n, D], the features of all frames, each video's by its own `level_of`."""
    result = np.empty_like(pooled)
    for place in range(len(frames.videos)):
        span = frames.span(place)
        if span.stop > span.start:
            result[span] = level_of(pooled, span).transform(pooled[span])
    return result


def _class_weights(context: TaskContext, settings: PhaseSettings) -> Tensor | None:
    if settings.balance == "none":
        return None
    targets = context.parts["train"].class_ids()
    weights = median_frequency_weights(targets, len(context.classes))
    return torch.from_numpy(weights / weights[targets].mean()).to(context.device)


def _validation_features(context: TaskContext, settings: PhaseSettings, head: PhaseHead) -> dict[str, Tensor]:
    """Pooled features [n, 2D] of each validation video, held: every validation reads them."""
    frames = context.parts.get("val")
    if frames is None:
        return {}
    pooled = uploaded(pooled_features(context, settings, head, frames), context.device)
    return {video: pooled[frames.span(place)] for place, video in enumerate(frames.videos)}


@torch.no_grad()
def pooled_features(
    context: TaskContext, settings: PhaseSettings, head: PhaseHead, frames: LabelledFrames
) -> np.ndarray:
    """float32 [n, 2D], what the temporal model learns from, by the frame classifier as it has become."""
    inputs = inputs_of(context, settings)
    if inputs.reads != "patches":
        return inputs.rows(frames)
    return torch.cat([head.frame.pooled(*each).float() for each in inputs.held(frames)()]).cpu().numpy()


def _scores(context: TaskContext, logits: dict[str, Tensor]) -> dict[str, float]:
    """Of the validation videos: accuracy, by which the best state is chosen, and F1, as the strict script has them."""
    truths = {video: truth.astype(np.int64) for video, truth in context.parts["val"].truths().items()}
    found = host_copy({video: values.argmax(1) for video, values in logits.items()}, copy=False)()
    predictions = {video: values.numpy() for video, values in found.items()}
    scores = script_scores(strict_counts(truths, predictions, len(context.classes)))
    return {"accuracy": scores["accuracy"], "f1": scores["f1"]}
