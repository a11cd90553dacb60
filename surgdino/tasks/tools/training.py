"""Settings, head and training stage of instrument presence."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from surgdino.metrics.arrays import nanmean, score_matrices
from surgdino.metrics.average_precision import class_ap
from surgdino.tasks.classifier.frame_inputs import FrameInputs, Inputs, frame_stage, reads_of
from surgdino.tasks.classifier.head import FrameClassifier
from surgdino.tasks.classifier.multilabel import (
    multilabel_loss,
    positive_weights,
    prior_logits,
    repeat_factors,
)
from surgdino.tasks.context import TaskContext
from surgdino.tasks.labelled_frames import LabelledFrames
from surgdino.tasks.tools.settings import ToolsSettings
from surgdino.tasks.training.batches import Batch
from surgdino.tasks.training.stage import Stage, Validate

DEFAULTS = {"epochs": 10, "batch_size": 64, "lr": 1e-3, "weight_decay": 0.01, "patience": 10}
_FROZEN = {"epochs": 20, "batch_size": 256, "lr": 2e-3}
_TUNED = {"lr": 1e-4, "epochs": 5, "patience": 3, "drop_path": 0.1}


class ToolClassifier(FrameClassifier):
    """Its logits are those of weighted positives: w times the odds. `log_weights` [C] takes the weights off again, so
    that probabilities are of tools as frequent as in training, and one half divides present from absent.
    """

    log_weights: Tensor

    def __init__(self, context: TaskContext, settings: ToolsSettings) -> None:
        super().__init__(
            context.width,
            len(context.classes),
            tokens=settings.tokens,
            pool_heads=settings.pool_heads,
            hidden=settings.hidden,
            dropout=settings.dropout,
        )
        self.register_buffer("log_weights", torch.zeros(len(context.classes)))

    def probabilities(self, *inputs: Tensor) -> Tensor:
        """float32 [B, C]."""
        return (self(*inputs).float() - self.log_weights).sigmoid()


def inputs_of(context: TaskContext, settings: ToolsSettings) -> FrameInputs:
    """How frames reach the head."""
    return FrameInputs(context, reads_of(settings.tokens))


def tools_stage(context: TaskContext, settings: ToolsSettings, head: ToolClassifier) -> Stage:
    """The head, together with what learns of the backbone. Every tool starts at its share of the training frames."""
    frames, inputs = context.parts["train"], inputs_of(context, settings)
    targets = np.concatenate(list(frames.truths().values()))
    positive = positive_weights(targets, settings.positive_weight_cap)
    log_weights = np.log(positive) if settings.loss == "bce" else np.zeros_like(positive)
    with torch.no_grad():
        head.log_weights.copy_(torch.from_numpy(log_weights))
        head.last.bias.copy_(torch.from_numpy(prior_logits(targets) + log_weights))
    weights = torch.from_numpy(positive).to(context.device)

    def loss(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        logits = model(*inputs.of_batch(batch)).float()
        return {"loss": multilabel_loss(logits, batch["targets"], settings.loss, weights)}

    data = inputs.data(frames, {"targets": targets}, repeat_factors(targets, settings.repeat_threshold))
    val = context.parts.get("val")
    given = {"defaults": DEFAULTS, "frozen": _FROZEN, "tuned": _TUNED}
    validate = None if val is None else _validation(inputs, head, val)
    return frame_stage("frame", inputs, head, data, loss, validate, **given, head_factor=10)


def _validation(inputs: FrameInputs, head: ToolClassifier, frames: LabelledFrames) -> Validate:
    """Mean average precision over all frames."""
    held = inputs.held(frames)

    def validate(_: nn.Module) -> dict[str, float]:
        found = probabilities_of(head, held())
        videos = {video: found[frames.span(place)] for place, video in enumerate(frames.videos)}
        ap_of = class_ap(score_matrices(frames.truths(), videos, found.shape[1]), pooled=True)
        return {"mAP": float(nanmean(ap_of(np.arange(len(videos)))))}

    return validate


@torch.no_grad()
def probabilities_of(head: ToolClassifier, blocks: Iterable[Inputs]) -> np.ndarray:
    """float32 [n, C], from blocks of inputs; in evaluation mode."""
    return torch.cat([head.probabilities(*each) for each in blocks]).cpu().numpy()
