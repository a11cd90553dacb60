"""A whole task in one file: the phase of each frame by a linear layer over the class token (see `test_task.py`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from surgdino.metrics.scores import TaskScores, score_rows
from surgdino.tasks.context import TaskContext
from surgdino.tasks.labelled_frames import LabelledFrames
from surgdino.tasks.task import Task
from surgdino.tasks.training.batches import FrameFeatures
from surgdino.tasks.training.stage import Stage
from surgdino.tasks.training.tuning import head_groups


@dataclass(frozen=True)
class ToySettings:
    name: str
    temperature: float


class ToyTask(Task[ToySettings, np.ndarray]):
    Settings, LABELS = ToySettings, "phase"

    def build_head(self, context: TaskContext) -> nn.Module:
        return nn.Linear(context.width, len(context.classes))

    def stages(self, context: TaskContext, head: nn.Module) -> Iterator[Stage]:
        def loss(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            return {"loss": F.cross_entropy(model(batch["features"]).float(), batch["targets"])}

        train = context.parts["train"]
        source = FrameFeatures(context.features.cls(train), train.class_ids())
        yield Stage("head", head, head_groups(head), source, loss)

    def predict(
        self, context: TaskContext, head: nn.Module, frames: LabelledFrames
    ) -> Iterator[tuple[str, np.ndarray]]:
        with torch.inference_mode():
            logits = head(torch.from_numpy(context.features.cls(frames)).to(context.device))
        probabilities = (logits / self.settings.temperature).softmax(1).cpu().numpy()
        for place, video in enumerate(frames.videos):
            yield video, probabilities[frames.span(place)]

    def scores(self, context: TaskContext, frames: LabelledFrames, predictions: Mapping[str, np.ndarray]) -> TaskScores:
        truths = frames.truths()
        right = np.array([(predictions[video].argmax(1) == truth).mean() for video, truth in truths.items()])
        owners = [frames.operations[video] for video in truths]
        table = score_rows(lambda rows: {"accuracy": float(right[rows].mean())}, owners, "toy/video-macro")
        return TaskScores(self.name, table, [], len(set(owners)), [], table[0])
