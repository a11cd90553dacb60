"""`class Task`: all that `finetune`, `evaluate` and `predict` ask of a task, with defaults for what is optional."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from torch import Tensor, nn

from surgdino import discovery
from surgdino.config import typed
from surgdino.csv_files import write_csv
from surgdino.datasets.card import Card
from surgdino.datasets.manifest import FrameLabels, Manifest
from surgdino.errors import SurgdinoError
from surgdino.exports.graph import Graph
from surgdino.metrics.scores import ScoreRequest, TaskScores
from surgdino.paths import file_of
from surgdino.tasks import MAIN, PACKAGE
from surgdino.tasks.context import TaskContext
from surgdino.tasks.labelled_frames import LabelledFrames, labels_of
from surgdino.tasks.prediction import AnyPrediction, Prediction
from surgdino.tasks.request import PredictRequest
from surgdino.tasks.scoring.scoring import Scoring
from surgdino.tasks.training.stage import Stage


@dataclass(frozen=True)
class Member:
    """One of several whose predictions are averaged."""

    task: Task[Any, Any]
    context: TaskContext
    head: nn.Module


Pictures = Callable[[int], dict[str, np.ndarray]]
S = TypeVar("S")  # the settings
P = TypeVar("P")  # what is predicted of one video


class Task(ABC, Generic[S, P]):
    """A task with its settings. A subclass in `tasks/NAME/task.py` is all that `task=NAME` needs beside its YAML.

    Attributes:
        Settings: the dataclass of the `task` section, whose defaults are in configs/task/NAME.yaml.
        LABELS: the kind of labels that it learns, a key of `Manifest.labels`.
        DEFAULTS: of the `train` section, for all stages.
        SINGLE_IMAGES: whether images without numbers are predicted, each by itself.
        PICTURE: what `pictures` shows, in a sentence.
        ASKS: whether it answers questions, of which `predict` takes a list.
        scoring: how predictions are scored; of use without a model too.
        name, settings: of this one.
        SMOOTHINGS: ways in which it smooths predictions of a video's frames, by name.
        smoothing: the one that was asked for, or `none`.
        members: what `predicted` averages, this task's own first; empty for its own prediction alone.
    """

    Settings: type[S]
    LABELS: str
    DEFAULTS: ClassVar[Mapping[str, Any]] = {}
    SINGLE_IMAGES = False
    PICTURE = ""
    ASKS = False
    SMOOTHINGS: ClassVar[tuple[str, ...]] = ()
    scoring = Scoring()

    def __init__(self, name: str, settings: S) -> None:
        self.name, self.settings = name, settings
        self.members: Sequence[Member] = ()
        self.smoothing = "none"

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

    def prepared(self, card: Card, manifest: Manifest) -> Task[S, P]:
        """The task with what its settings leave to the data, before anything is built.

        Raises:
            SurgdinoError: data that cannot be learned.
        """
        return self

    def evaluate(self, context: TaskContext, head: nn.Module, frames: LabelledFrames, folder: Path) -> TaskScores:
        """Every number of the labelled frames; the predictions go to `predictions/` in `folder`."""
        numbers, predictions = frames.numbers_of(), {}
        for video, prediction in self.predicted(context, head, frames):
            predictions[video] = prediction
            self.write_predictions(folder / "predictions", video, numbers[video], prediction, context.classes)
        return self.scores(context, frames, predictions)

    def predicted(self, context: TaskContext, head: nn.Module, frames: LabelledFrames) -> Iterator[tuple[str, P]]:
        """As `predict`, averaged over `members` where there are any."""
        if not self.members:
            yield from self.predict(context, head, frames)
            return
        for found in zip(*(each.task.predict(each.context, each.head, frames) for each in self.members), strict=True):
            yield found[0][0], self.averaged([prediction for _, prediction in found])

    def averaged(self, predictions: Sequence[P]) -> P:
        """One prediction of several of the same video: the mean of probabilities, of arrays or of arrays by name.

        Raises:
            SurgdinoError: the task's predictions are something else.
        """
        first: Any = predictions[0]
        if isinstance(first, np.ndarray) and np.issubdtype(first.dtype, np.floating):
            return np.mean(np.stack([np.asarray(each) for each in predictions]), 0, dtype=np.float64).astype(
                first.dtype
            )  # type: ignore[return-value]
        if isinstance(first, dict):
            parts: Any = predictions
            return {name: self.averaged([each[name] for each in parts]) for name in first}  # type: ignore[return-value]
        raise SurgdinoError(f"predictions of task={self.name} are not averaged", fix="use one run, and averaging=none")

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
        [(_, prediction)] = self.predicted(request.context, request.head, request.frames)
        name, numbers, classes = request.source.name, request.frames.numbers, request.context.classes
        return {"predictions": self.write_predictions(request.folder, name, numbers, prediction, classes)}

    def prediction(self, request: PredictRequest) -> Prediction:
        """What `write` writes of the frames, for `surgdino.load(run).predict(frames)`."""
        found = list(self.predicted(request.context, request.head, request.frames))
        return AnyPrediction.of(request, self.name, found=found)

    def draw(self, context: TaskContext, head: nn.Module, frames: LabelledFrames, folder: Path, caption: str) -> None:
        """Draw what was predicted of the tested videos into `folder`, for the report: pictures that show no patient."""

    def pictures(self, frames: LabelledFrames, predictions: Path, classes: Sequence[str]) -> Pictures:
        """What draws a labelled frame for the report, where frames were asked for: which of `frames` -> what it is
        called -> uint8 [H, W, 3] RGB of one size. As it is by default; `truth` and `prediction` beside it where these
        can be drawn.

        Args:
            predictions: the folder of what `evaluate` wrote of them.
        """
        return lambda row: {"frame": frames.store.read(int(frames.index[row]))}

    def read_truth(self, path: Path, classes: Sequence[str]) -> FrameLabels:
        """The labels that a file gives, by frame number, for `surgdino predict truth=FILE`.

        Raises:
            SurgdinoError: the file is malformed, names other classes, or the task reads none.
        """
        fix = "leave it out; surgdino score compares prediction files with a truth"
        raise SurgdinoError(f"task={self.name} does not take truth=", file=path, fix=fix)

    def graphs(self, context: TaskContext, head: nn.Module) -> tuple[Graph, ...]:
        """Backbone and head as programs of fixed steps, for `surgdino export`; see `Subject.graphs`.

        Raises:
            SurgdinoError: there is no such program.
        """
        what, fix = f"task={self.name} is not exported with its head", "use head=false for its backbone alone"
        raise SurgdinoError(what, fix=f"{fix}; surgdino predict runs the whole")

    def said(
        self, context: TaskContext, head: nn.Module, frames: LabelledFrames, images: Tensor
    ) -> Mapping[str, np.ndarray]:
        """What the prediction of frames of one video is, by the names of the programs' outputs, [n, ...]: an export is
        compared with it.

        Args:
            images: the frames as `graphs` takes them.
        """
        return {"probabilities": next(np.asarray(found) for _, found in self.predict(context, head, frames))}

    def remarks(self) -> list[str]:
        """What is to be known of the programs' outputs, a sentence each."""
        return []

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
