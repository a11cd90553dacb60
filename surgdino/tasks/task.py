"""`class Task`: all that `finetune`, `evaluate` and `predict` ask of a task, with defaults for what is optional."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from torch import nn

from surgdino import discovery
from surgdino.config import typed
from surgdino.csv_files import write_csv
from surgdino.datasets.card import Card
from surgdino.datasets.manifest import FrameLabels, Manifest
from surgdino.errors import SurgdinoError
from surgdino.metrics.scores import ScoreRequest, TaskScores
from surgdino.paths import file_of
from surgdino.tasks import MAIN, PACKAGE
from surgdino.tasks.context import TaskContext
from surgdino.tasks.labelled_frames import LabelledFrames, labels_of
from surgdino.tasks.request import PredictRequest
from surgdino.tasks.scoring.scoring import Scoring
from surgdino.tasks.training.stage import Stage

S = TypeVar("S")  # the settings
P = TypeVar("P")  # what is predicted of one video


class Task(ABC, Generic[S, P]):
    """A task with its settings. A subclass in `tasks/NAME/task.py` is all that `task=NAME` needs beside its YAML.

    Attributes:
        Settings: the dataclass of the `task` section, whose defaults are in configs/task/NAME.yaml.
        LABELS: the kind of labels that it learns, a key of `Manifest.labels`.
        DEFAULTS: of the `train` section, for all stages.
        SINGLE_IMAGES: whether images without numbers are predicted, each by itself.
        PICTURE: what `picture` shows, in a sentence.
        scoring: how predictions are scored; of use without a model too.
        name, settings: of this one.
    """

    Settings: type[S]
    LABELS: str
    DEFAULTS: ClassVar[Mapping[str, Any]] = {}
    SINGLE_IMAGES = False
    PICTURE = ""
    scoring = Scoring()

    def __init__(self, name: str, settings: S) -> None:
        self.name, self.settings = name, settings

    # What every task has

    @abstractmethod
    def build_head(self, context: TaskContext) -> nn.Module:
        """A fresh head for the context's backbone and classes."""

    @abstractmethod
    def stages(self, context: TaskContext, head: nn.Module) -> Iterator[Stage]:
        """What is trained, one stage after another; the next is asked for when the one before it is finished."""

    @abstractmethod
    def predict(self, context: TaskContext, head: nn.Module, frames: LabelledFrames) -> Iterator[tuple[str, P]]:
        """(video id, prediction) of each video, in the order of `frames.videos`."""

    # What has a default

    def classes(self, card: Card, manifest: Manifest) -> tuple[str, ...]:
        """Names in the order of their ids: those of the labels.

        Raises:
            SurgdinoError: the dataset has none.
        """
        return labels_of(manifest, self.LABELS).classes

    def evaluate(self, context: TaskContext, head: nn.Module, frames: LabelledFrames, folder: Path) -> TaskScores:
        """Every number of the labelled frames; the predictions go to `predictions/` in `folder`."""
        numbers, predictions = frames.numbers_of(), {}
        for video, prediction in self.predict(context, head, frames):
            predictions[video] = prediction
            self.write_predictions(folder / "predictions", video, numbers[video], prediction, context.classes)
        return self.scores(context, frames, predictions)

    def scores(self, context: TaskContext, frames: LabelledFrames, predictions: Mapping[str, P]) -> TaskScores:
        """Every number of every protocol, from the task's panel."""
        request = ScoreRequest(frames.truths(), predictions, context.classes, frames.operations, protocol="all")
        return self.scoring.scores(request)

    def write_predictions(
        self, folder: Path, video: str, numbers: np.ndarray, prediction: P, classes: Sequence[str]
    ) -> Path:
        """Write `<video>.csv`: a row a frame, its number and one value a class (or one value).

        Args:
            numbers: int64 [n], of the frames.
            prediction: [n] or [n, C], where this is not overridden.
        """
        values = np.asarray(prediction).reshape(len(numbers), -1)
        header = classes if values.shape[1] == len(classes) else ["value"] * values.shape[1]
        rows = ((number, *row) for number, row in zip(numbers.tolist(), values.tolist(), strict=True))
        return write_csv(file_of(folder, video, ".csv"), ["frame", *header], rows)

    def write(self, request: PredictRequest) -> dict[str, Path]:
        """Predict a video and write it down, for `surgdino predict`; what it is -> where it is."""
        [(_, prediction)] = self.predict(request.context, request.head, request.frames)
        name, numbers, classes = request.source.name, request.frames.numbers, request.context.classes
        return {"predictions": self.write_predictions(request.folder, name, numbers, prediction, classes)}

    def draw(self, context: TaskContext, head: nn.Module, frames: LabelledFrames, folder: Path, caption: str) -> None:
        """Draw what was predicted of the tested videos into `folder`, for the report: pictures that show no patient."""

    def picture(self, frames: LabelledFrames, row: int, predictions: Path, classes: Sequence[str]) -> np.ndarray:
        """A labelled frame as the report may show it where frames were asked for, uint8 [H, W, 3] RGB: as it is, by
        default.

        Args:
            row: which of `frames`.
            predictions: the folder of what `evaluate` wrote of them.
        """
        return frames.store.read(int(frames.index[row]))

    def read_truth(self, path: Path, classes: Sequence[str]) -> FrameLabels:
        """The labels that a file gives, by frame number, for `surgdino predict truth=FILE`.

        Raises:
            SurgdinoError: the file is malformed, names other classes, or the task reads none.
        """
        fix = "leave it out; surgdino score compares prediction files with a truth"
        raise SurgdinoError(f"task={self.name} does not take truth=", file=path, fix=fix)

    def variant(self) -> str:
        """Which of the task's models the settings choose, for captions; empty where there is one."""
        return ""


def open_task(section: Mapping[str, Any]) -> Task[Any, Any]:
    """The task that the `task` section of a configuration names, with its settings checked.

    Raises:
        SurgdinoError: no such task, or settings that it does not take.
    """
    module = discovery.load(PACKAGE, section["name"], "task", MAIN)
    kind: type[Task[Any, Any]] = discovery.defined(module, Task)  # type: ignore[type-abstract]
    return kind(section["name"], typed(kind.Settings, section, "task"))
