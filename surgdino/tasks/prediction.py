"""What a task says of frames, for those who ask in Python; each task's folder has its own kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from surgdino.tasks.request import PredictRequest


@dataclass(frozen=True)
class Prediction:
    """Of n frames, in the order in which they were given.

    Attributes:
        task: `phase`, `tools`, ...
        classes: C names in the order of their ids.
        videos: of each frame the video's name; of single pictures the picture's.
        numbers: int64 [n], frame numbers in the source.
        times: float64 [n], seconds from the first frame of the source.
    """

    task: str
    classes: tuple[str, ...]
    videos: tuple[str, ...]
    numbers: np.ndarray
    times: np.ndarray

    def __len__(self) -> int:
        return len(self.numbers)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} frames, {len(self.classes)} classes)"

    @classmethod
    def of(cls, request: PredictRequest, task: str, **own: Any) -> Self:
        """With what the request says of the frames; `own` are the fields of the subclass."""
        frames = request.frames
        videos = tuple(frames.videos[place] for place in frames.video_of)
        return cls(task, request.context.classes, videos, frames.numbers, frames.times, **own)


@dataclass(frozen=True, repr=False)
class ClassProbabilities(Prediction):
    """Attributes:
    probabilities: float32 [n, C].
    """

    probabilities: np.ndarray

    def top(self, row: int, most: int = 5) -> list[tuple[str, float]]:
        """The likeliest classes of a frame with their probabilities."""
        order = np.argsort(-self.probabilities[row], kind="stable")[:most]
        return [(self.classes[place], float(self.probabilities[row, place])) for place in order]


@dataclass(frozen=True, repr=False)
class OneClass(ClassProbabilities):
    """Frames that have one class each.

    Attributes:
        ids: int64 [n], the class of each frame.
    """

    @property
    def ids(self) -> np.ndarray:
        """int64 [n], the likeliest class of each frame."""
        return self.probabilities.argmax(1)

    @property
    def labels(self) -> list[str]:
        """Its name, n entries."""
        return [self.classes[place] for place in self.ids.tolist()]


@dataclass(frozen=True, repr=False)
class SeveralClasses(ClassProbabilities):
    """Frames that have any number of classes."""

    @property
    def present(self) -> np.ndarray:
        """bool [n, C], where the probability is above a half."""
        return self.probabilities > 0.5

    @property
    def labels(self) -> list[list[str]]:
        """The names of those that are present, n lists."""
        return [[self.classes[place] for place in np.flatnonzero(row)] for row in self.present]


@dataclass(frozen=True, repr=False)
class AnyPrediction(Prediction):
    """Of a task without a kind of its own.

    Attributes:
        found: (video id, what the task predicts of it) of each video.
    """

    found: Sequence[tuple[str, Any]]
