"""What `surgdino predict` asks of a task: one video, the trained head, and where to write."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from surgdino.datasets.manifest import FrameLabels, Labels, Manifest, SecondLabels, SegmentLabels, Video
from surgdino.datasets.masks import VideoMasks
from surgdino.frames.video.decode import Frame, probe, read_frames
from surgdino.tasks.context import TaskContext
from surgdino.tasks.labelled_frames import LabelledFrames


@dataclass(frozen=True)
class InputVideo:
    """What is predicted in one go.

    Attributes:
        name: the dataset's id of the video, or the name of the file or folder.
        videos: one; of a folder of single images, each image as one.
        operation: as the dataset calls it; None where the video belongs to none.
        labels: of the task's kind, for this video among others; None where nothing is known.
    """

    name: str
    videos: tuple[Video, ...]
    operation: str | None = None
    labels: Labels | None = None

    def manifest(self) -> Manifest:
        """A manifest of this and nothing else."""
        return Manifest("predicted", self.videos[0].path.parent, self.videos)


@dataclass(frozen=True)
class PredictRequest:
    """What a task is asked to write of one video.

    Attributes:
        context: of the trained task, with its backbone on the device.
        head: trained, in evaluation mode.
        frames: all frames of the video, unlabelled.
        source: the video, and its truth where that is known.
        decoder: the backend that reads video files.
        truth: labels that the user gave, or None.
        folder: where to write.
        caption: which model it is, in a line for pictures.
        questions: what to ask, of a task that answers questions; none asks what the task knows.
    """

    context: TaskContext
    head: nn.Module
    frames: LabelledFrames
    source: InputVideo
    decoder: str
    truth: FrameLabels | None
    folder: Path
    caption: str
    questions: tuple[str, ...] = ()

    def pictures(self) -> Iterator[Frame]:
        """The frames at their own size, in the order of `frames`: the store has smaller ones."""
        numbers = self.frames.numbers_of()
        videos = {video.id: video for video in self.source.videos}
        for video in (videos[name] for name in self.frames.videos):
            info = probe(video.path, self.decoder, fps=video.fps)
            yield from read_frames(video.path, numbers[video.id], self.decoder, info=info)

    def labels(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Which frames have a label, bool [n], and the labels [n, ...]: those given or the dataset's, or None."""
        values: FrameLabels | SecondLabels | SegmentLabels | None = self.truth
        if values is None and self.source.labels is not None:
            found = self.source.labels.values[self.source.name]
            values = None if isinstance(found, VideoMasks) else found
        return None if values is None else values.at(self.frames.numbers, self.frames.times)
