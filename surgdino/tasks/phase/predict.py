"""What `surgdino predict` writes of phases: a table, the M2CAI text, and the ribbon."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from surgdino.datasets.manifest import FrameLabels
from surgdino.paths import atomic_write
from surgdino.tasks.phase import task as phase
from surgdino.tasks.phase.files import read_phase, write_phase
from surgdino.tasks.phase.ribbon import Ribbon, draw_ribbon

if TYPE_CHECKING:
    from torch import nn

    from surgdino.tasks.context import TaskContext
    from surgdino.tasks.labelled_frames import LabelledFrames
    from surgdino.tasks.request import Request

PICTURES = False  # frames follow each other
_PIECE_SECONDS = 300.0  # what is shorter is hardly a whole operation


def read_truth(path: Path, classes: Sequence[str]) -> FrameLabels:
    """The phases that a text file gives, by frame number.

    Raises:
        SurgdinoError: it is malformed, or names phases that the model does not know.
    """
    return FrameLabels(*read_phase(path, classes))


def write(request: Request) -> dict[str, Path]:
    """Predict the video and write it down; what it is -> where it lies."""
    frames, classes = request.frames, request.context.classes
    known = truth_of(request)
    seconds = float(np.ptp(frames.times)) if len(frames) else 0.0
    if request.context.settings.align and seconds < _PIECE_SECONDS:
        request.context.say(
            f"! {request.source.name} lasts {seconds:.0f} s, but the model was taught with task.align=true: it takes "
            "the level of a whole operation away, and of a piece the level is part of what it shows"
        )
    [(_, probabilities)] = phase.predict(request.context, request.head, frames)
    name = request.source.name
    ribbon = _ribbon(name, frames.times, classes, probabilities, known, request.told)
    return {
        "table": write_table(request.folder / f"{name}.csv", ribbon, frames.numbers, probabilities),
        "phases": write_phase(request.folder, name, frames.numbers, ribbon.prediction, classes),
        "picture": draw_ribbon(ribbon, request.folder / f"{name}.png"),
    }


def draw_predictions(context: TaskContext, head: nn.Module, frames: LabelledFrames, folder: Path, told: str) -> None:
    """The ribbon of every tested video, for a run's report: `<video>-ribbon.png`."""
    truths = frames.truths()
    for place, (video, probabilities) in enumerate(phase.predict(context, head, frames)):
        times = frames.times[frames.span(place)]
        ribbon = _ribbon(video, times, context.classes, probabilities, truths[video], told)
        draw_ribbon(ribbon, folder / f"{video}-ribbon.png")


def _ribbon(
    video: str,
    times: np.ndarray,
    classes: Sequence[str],
    probabilities: np.ndarray,
    truth: np.ndarray | None,
    told: str,
) -> Ribbon:
    return Ribbon(
        video=video,
        times=times,
        classes=classes,
        prediction=probabilities.argmax(1),
        confidence=probabilities.max(1),
        truth=truth,
        told=told,
    )


def truth_of(request: Request) -> np.ndarray | None:
    """Class ids int64 [n] of the frames, -1 where one has none; None where nothing is known of the video."""
    frames, source = request.frames, request.source
    values = request.truth
    if values is None and source.labels is not None:
        values = source.labels.values[source.name]  # type: ignore[assignment]
    if values is None:
        return None
    present, ids = values.at(frames.numbers, frames.times)
    return np.where(present, ids.astype(np.int64), -1)


def write_table(path: Path, ribbon: Ribbon, numbers: np.ndarray, probabilities: np.ndarray) -> Path:
    """A CSV with a row a frame: its number, seconds, the phase's name, its truth where known, and all probabilities."""
    header = ["frame", "seconds", "phase", *([] if ribbon.truth is None else ["truth"]), *ribbon.classes]
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(header)
        for i, number in enumerate(numbers.tolist()):
            row = [number, f"{ribbon.times[i]:.3f}", ribbon.classes[int(ribbon.prediction[i])]]
            if ribbon.truth is not None:
                row.append(ribbon.classes[int(ribbon.truth[i])] if ribbon.truth[i] >= 0 else "")
            rows.writerow([*row, *(f"{value:.5f}" for value in probabilities[i])])
    return path
