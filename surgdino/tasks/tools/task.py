"""Instrument presence: which of some instruments a frame shows, any number of them.

One stage: a classifier of single frames, each instrument by itself, and as much of the backbone as shall learn.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import nn

from surgdino.datasets.manifest import FrameLabels
from surgdino.exports.graph import Graph
from surgdino.metrics.scores import TaskScores
from surgdino.paths import file_of
from surgdino.report.score_strips import ScoreStrips, draw_score_strips
from surgdino.tasks.classifier.head import FrameProgram
from surgdino.tasks.context import TaskContext
from surgdino.tasks.durations import print_durations
from surgdino.tasks.labelled_frames import LabelledFrames
from surgdino.tasks.prediction import SeveralClasses
from surgdino.tasks.request import PredictRequest
from surgdino.tasks.scoring.frames import several_classes
from surgdino.tasks.task import Task
from surgdino.tasks.tools.files import read_tool_table, write_presence
from surgdino.tasks.tools.score import ToolsScoring
from surgdino.tasks.tools.settings import ToolsSettings
from surgdino.tasks.tools.training import (
    DEFAULTS,
    ToolClassifier,
    inputs_of,
    probabilities_of,
    tools_stage,
)
from surgdino.tasks.training.stage import Stage

_SHOWN = 40  # instruments in a picture, those seen most surely


class ToolsTask(Task[ToolsSettings, np.ndarray]):
    """What is predicted of a video are probabilities, float32 [n, C]."""

    Settings, LABELS, DEFAULTS = ToolsSettings, "tools", DEFAULTS
    PICTURE = "Right where all tools above 0.5 are there and no others."
    scoring = ToolsScoring()

    def build_head(self, context: TaskContext) -> ToolClassifier:
        """The classifier."""
        return ToolClassifier(context, self.settings)

    def stages(self, context: TaskContext, head: nn.Module) -> Iterator[Stage]:
        """One."""
        assert isinstance(head, ToolClassifier)
        yield tools_stage(context, self.settings, head)

    def predict(
        self, context: TaskContext, head: nn.Module, frames: LabelledFrames
    ) -> Iterator[tuple[str, np.ndarray]]:
        """One video at a time; nothing is kept on disk."""
        assert isinstance(head, ToolClassifier)
        inputs = inputs_of(context, self.settings)
        for video in frames.videos:
            yield video, probabilities_of(head, inputs.streamed(frames.of_videos([video])))

    def graphs(self, context: TaskContext, head: nn.Module) -> tuple[Graph, ...]:
        """`probabilities` of every instrument by itself."""
        assert isinstance(head, ToolClassifier)
        program = FrameProgram(context.backbone, head, lambda *tokens: (head.probabilities(*tokens),))
        outputs = {"probabilities": f"[B, {len(context.classes)}], of each instrument; it is there above 0.5"}
        return (Graph("model", program, context.shape, outputs, classes={"probabilities": context.classes}),)

    def scores(self, context: TaskContext, frames: LabelledFrames, predictions: Mapping[str, np.ndarray]) -> TaskScores:
        """Both protocols' numbers."""
        frames_of = several_classes(frames.truths(), predictions, frames.numbers_of(), context.classes)
        return replace(super().scores(context, frames, predictions), frames=frames_of)

    def write(self, request: PredictRequest) -> dict[str, Path]:
        """A table of probabilities, the instruments that are there as Cholec80 writes them, and all in time."""
        frames, name, classes = request.frames, request.source.name, request.context.classes
        found = self.prediction(request).probabilities
        known = request.labels()
        truth = None if known is None else np.where(known[0][:, None], known[1].astype(np.int64), -1)
        strips = ScoreStrips(name, frames.times, classes, found, truth, request.caption, _SHOWN)
        print_durations("instrument", frames.times, found > 0.5, classes)
        return {
            "probabilities": self.write_predictions(request.folder, name, frames.numbers, found, classes),
            "tools": write_presence(request.folder, name, frames.numbers, found > 0.5, classes),
            "picture": draw_score_strips(strips, file_of(request.folder, name, ".png")),
        }

    def prediction(self, request: PredictRequest) -> SeveralClasses:
        """The probabilities."""
        [(_, found)] = self.predicted(request.context, request.head, request.frames)
        return SeveralClasses.of(request, self.name, probabilities=found)

    def draw(self, context: TaskContext, head: nn.Module, frames: LabelledFrames, folder: Path, caption: str) -> None:
        """Every video's instruments in time: `<video>-tools.png`."""
        truths = frames.truths()
        for place, (video, found) in enumerate(self.predicted(context, head, frames)):
            times = frames.times[frames.span(place)]
            strips = ScoreStrips(video, times, context.classes, found, truths[video], caption, _SHOWN)
            draw_score_strips(strips, file_of(folder, video, "-tools.png"))

    def read_truth(self, path: Path, classes: Sequence[str]) -> FrameLabels:
        """The tools of a file as Cholec80's."""
        table = read_tool_table(path, flags=True)
        return FrameLabels(table.frames, table.in_order(classes, path).astype(np.uint8))
