"""Phase recognition: every frame has one of a few phases.

Two stages. `frame` trains a classifier of single frames, and as much of the backbone as shall learn. `temporal` trains
a model over the features that this backbone gives of whole videos; one that never looks ahead by default.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from surgdino.console import say, warn
from surgdino.csv_files import write_csv
from surgdino.datasets.manifest import FrameLabels
from surgdino.datasets.masks import VideoMasks
from surgdino.errors import SurgdinoError
from surgdino.exports.graph import Graph
from surgdino.metrics.scores import ScoreRequest, TaskScores
from surgdino.paths import file_of
from surgdino.report.operation import timeline_of, write_timeline
from surgdino.tasks.classifier.head import FrameClassifier, FrameProgram
from surgdino.tasks.context import TaskContext
from surgdino.tasks.durations import print_durations
from surgdino.tasks.features.files import FeatureRows
from surgdino.tasks.labelled_frames import LabelledFrames
from surgdino.tasks.phase.choice import Choice, candidates_on_folds, candidates_on_validation
from surgdino.tasks.phase.files import read_phase, write_phase
from surgdino.tasks.phase.head import PhaseHead, VideoProgram
from surgdino.tasks.phase.post import processed, transitions
from surgdino.tasks.phase.ribbon import Ribbon, draw_ribbon
from surgdino.tasks.phase.score import PhaseScoring
from surgdino.tasks.phase.settings import AUTO, NONE, OFFLINE, PhaseSettings
from surgdino.tasks.phase.stages import (
    DEFAULTS,
    classifier_stage,
    inputs_of,
    level_of,
    temporal_stage,
)
from surgdino.tasks.phase.temporal import TemporalModel, build_temporal
from surgdino.tasks.prediction import OneClass
from surgdino.tasks.request import PredictRequest
from surgdino.tasks.scoring.frames import one_class
from surgdino.tasks.task import Task
from surgdino.tasks.training.stage import Stage
from surgdino.transfers import uploaded

_BLOCK = 1024  # frames that go through a temporal model at a time
_INSTRUMENTS = ("tools", "instrument")  # kinds of labels that say which are there
_PIECE_SECONDS = 300.0  # what is shorter is hardly a whole operation


class PhaseTask(Task[PhaseSettings, np.ndarray]):
    """What is predicted of a video are class probabilities, float32 [n, C]."""

    Settings, LABELS, DEFAULTS = PhaseSettings, "phase", DEFAULTS
    PICTURE = "Right where the highest class is the true one."
    scoring = PhaseScoring()

    def __init__(self, name: str, settings: PhaseSettings) -> None:
        super().__init__(name, settings)
        self.LABELS = settings.labels
        self.chosen = ""  # what `auto` found, once it has

    def build_head(self, context: TaskContext) -> PhaseHead:
        """The classifier of single frames and the temporal model."""
        settings, classes = self.settings, len(context.classes)
        frame = FrameClassifier(
            context.width,
            classes,
            tokens=settings.tokens,
            pool_heads=settings.pool_heads,
            hidden=settings.hidden,
        )
        temporal = self._temporal(settings.temporal, frame.features, classes)
        what = "task.align needs features that stay as they are"
        if settings.align and context.learns:
            raise SurgdinoError(what, place="backbone", expected="frozen", found=context.tuning)
        if settings.align and settings.tokens == "attentive":
            raise SurgdinoError(what, place="task.tokens", expected="cls, cls+mean", found=settings.tokens)
        ordered = settings.post in ("order", "order_offline")
        return PhaseHead(frame, temporal, torch.ones(classes, classes) / classes if ordered else None)

    def _temporal(self, name: str, features: int, classes: int) -> TemporalModel | None:
        """A fresh temporal model of the settings' sizes."""
        settings = self.settings
        sizes = {key: getattr(settings, key) for key in ("layers", "width", "window", "dropout")}
        temporal = build_temporal(name, features, classes, **sizes)
        if settings.align and (name == AUTO[0] or (temporal is not None and temporal.online)):
            raise SurgdinoError(
                "task.align needs the whole video, which an online model must not see",
                place="task.temporal",
                expected=f"none, or a name that ends in {OFFLINE}",
                found=name,
            )
        return temporal

    def stages(self, context: TaskContext, head: nn.Module) -> Iterator[Stage]:
        """`frame`, then `temporal` on the features of the backbone that the first one leaves."""
        assert isinstance(head, PhaseHead)
        if self.settings.align:
            warn("task.align: each video is normalised by its own frames, so these numbers are of finished recordings")
        if head.follows is not None:
            truths = [truth.astype(np.int64) for truth in context.parts["train"].truths().values()]
            head.follows.copy_(torch.from_numpy(transitions(truths, len(context.classes))))
        if self.settings.temporal in AUTO:
            yield from self._chosen_stages(context, head)
            return
        yield classifier_stage(context, self.settings, head)
        if head.temporal is not None:
            yield temporal_stage(context, self.settings, head)

    def _chosen_stages(self, context: TaskContext, head: PhaseHead) -> Iterator[Stage]:
        """The candidates, judged on the validation part or on parts of training; then what was chosen."""
        settings, choice, features = self.settings, Choice(), head.frame.features
        made = {name: self._temporal(name, features, len(context.classes)) for name in settings.tried()}
        fresh = {name: PhaseHead(head.frame, model).to(context.device) for name, model in made.items()}
        validated = bool(context.parts.get("val"))
        if validated:
            yield classifier_stage(context, settings, head)
            yield from candidates_on_validation(context, settings, head, fresh, choice)
        else:
            yield from candidates_on_folds(context, settings, {NONE: head, **fresh}, choice)
            yield classifier_stage(context, settings, head)
        self.chosen = choice.told()
        say(self.chosen)
        self.settings = replace(settings, temporal=choice.best)
        if choice.best != NONE:
            head.temporal = fresh[choice.best].temporal
            # On a validation part it is trained already, and is done at once: its last step is kept like any other's.
            yield temporal_stage(context, settings, head, f"temporal-{choice.best}" if validated else "temporal")

    def predict(
        self, context: TaskContext, head: nn.Module, frames: LabelledFrames
    ) -> Iterator[tuple[str, np.ndarray]]:
        """Video by video, its features read a block at a time."""
        assert isinstance(head, PhaseHead)
        rows = None if head.frame.pool else context.features.pooled_rows(frames)
        for place, video in enumerate(frames.videos):
            if rows is not None:
                blocks = _blocks(context, rows, frames.span(place), self.settings.align)
            else:
                tokens = inputs_of(context, self.settings).streamed(frames.of_videos([video]))
                blocks = (head.frame.pooled(*each) for each in tokens)
            with torch.no_grad():
                found = torch.cat(list(head.probabilities(blocks))).cpu().numpy()
            follows = None if head.follows is None else head.follows.cpu().numpy()
            yield video, processed(found, self.settings.post, self.settings.post_frames, follows)

    def graphs(self, context: TaskContext, head: nn.Module) -> tuple[Graph, ...]:
        """`model`, from frames to features and to what the classifier of single frames says; where there is a temporal
        model or an alignment also `video`, from the features of all frames of a video to `probabilities`."""
        assert isinstance(head, PhaseHead)
        frame, aligns, classes = head.frame, self.settings.align, len(context.classes)
        of_video = aligns or head.temporal is not None

        def say(cls: Tensor, patches: Tensor) -> tuple[Tensor, ...]:
            pooled = frame.pooled(cls, patches)
            by_itself = frame(pooled).float().softmax(1)
            return (pooled,) if aligns else (pooled, by_itself) if of_video else (by_itself,)

        width = 2 * context.width
        features, by_frame = f"[B, {width}]", f"[B, {classes}], of the classes"
        outputs = {} if not of_video else {"features": features}
        outputs |= {} if aligns else {"frame_probabilities" if of_video else "probabilities": by_frame}
        named = {name: context.classes for name in outputs if name.endswith("probabilities")}
        model = Graph("model", FrameProgram(context.backbone, frame, say), context.shape, outputs, classes=named)
        if not of_video:
            return (model,)
        taking = f"[T, {width}], the features of all frames of one video in their order"
        outputs, named = {"probabilities": f"[T, {classes}], of the classes"}, {"probabilities": context.classes}
        program = VideoProgram(head, aligns)
        return model, Graph("video", program, (width,), outputs, "features", taking, named, 2)

    def said(
        self, context: TaskContext, head: nn.Module, frames: LabelledFrames, images: Tensor
    ) -> Mapping[str, np.ndarray]:
        """The probabilities before any post-processing."""
        plain = PhaseTask(self.name, replace(self.settings, post="none"))
        return {"probabilities": next(found for _, found in plain.predict(context, head, frames))}

    def remarks(self) -> list[str]:
        """How frames were taken, and what is not in the programs."""
        settings, found = self.settings, []
        if settings.temporal not in (NONE, *AUTO):
            looks = "ahead too" if settings.temporal.endswith(OFFLINE) else "back alone"
            found.append(
                f"`video` is the temporal model {settings.temporal}, which looks {looks}; it takes a whole video"
            )
        if settings.align:
            found.append("`video` standardises the features of a video by themselves first: it needs a whole operation")
        if settings.post != "none":
            found.append(f"The run's own predictions are post-processed (task.post={settings.post}); these are not")
        return found

    def scores(self, context: TaskContext, frames: LabelledFrames, predictions: Mapping[str, np.ndarray]) -> TaskScores:
        """Every protocol's numbers."""
        request = ScoreRequest(
            {video: truth.astype(np.int64) for video, truth in frames.truths().items()},
            {video: probabilities.argmax(1) for video, probabilities in predictions.items()},
            context.classes,
            frames.operations,
            fps=_labels_per_second(frames),
            frames=frames.numbers_of(),
            protocol="all",
        )
        frames_of = one_class(request.truths, predictions, frames.numbers_of(), context.classes)
        scores = self.scoring.scores(request)
        if self.settings.labels != "phase":  # protocols keep their names: they are the same for steps
            tables = [replace(table, title=self.settings.labels) for table in scores.classes]
            confusions = [replace(each, title=self.settings.labels) for each in scores.confusions]
            scores = replace(scores, classes=tables, confusions=confusions)
        notes = [self.chosen] if self.chosen else []
        if self.settings.post != "none":
            notes.append(f"predictions are post-processed: task.post={self.settings.post}")
        return replace(scores, notes=[*scores.notes, *notes], frames=frames_of)

    def write_predictions(
        self, folder: Path, video: str, numbers: np.ndarray, prediction: np.ndarray, classes: Sequence[str]
    ) -> Path:
        """The M2CAI text file, with names."""
        return write_phase(folder, video, numbers, prediction.argmax(1), classes, self.settings.labels)

    def write(self, request: PredictRequest) -> dict[str, Path]:
        """A table, the M2CAI text, the ribbon, and what a page shows of it."""
        frames, name, folder = request.frames, request.source.name, request.folder
        seconds = float(np.ptp(frames.times)) if len(frames) else 0.0
        if self.settings.align and seconds < _PIECE_SECONDS:
            warn(
                f"{name} lasts {seconds:.0f} s, but the model was trained with task.align=true: it removes the mean of "
                "a whole operation, and of a piece the mean is part of what it shows"
            )
        probabilities = self.prediction(request).probabilities
        known = request.labels()
        truth = None if known is None else np.where(known[0], known[1].astype(np.int64), -1)
        ribbon = _ribbon(name, frames.times, request.context.classes, probabilities, truth, request.caption)
        numbers, classes = frames.numbers, request.context.classes
        shown = timeline_of(name, frames.times, classes, ribbon.prediction, ribbon.confidence, truth)
        present = probabilities.argmax(1)[:, None] == np.arange(len(classes))
        print_durations(self.settings.labels, frames.times, present, classes)
        return {
            "table": _write_table(file_of(folder, name, ".csv"), ribbon, numbers, probabilities, self.settings.labels),
            "phases": self.write_predictions(folder, name, numbers, probabilities, classes),
            "picture": draw_ribbon(ribbon, file_of(folder, name, ".png")),
            "timeline": write_timeline(folder, shown),
        }

    def prediction(self, request: PredictRequest) -> OneClass:
        """The probabilities."""
        [(_, found)] = self.predicted(request.context, request.head, request.frames)
        return OneClass.of(request, self.name, probabilities=found)

    def draw(self, context: TaskContext, head: nn.Module, frames: LabelledFrames, folder: Path, caption: str) -> None:
        """The ribbon of every video, `<video>-ribbon.png`, and what the report shows of it: `<video>-timeline.json`."""
        truths = frames.truths()
        for place, (video, probabilities) in enumerate(self.predicted(context, head, frames)):
            times = frames.times[frames.span(place)]
            ribbon = _ribbon(video, times, context.classes, probabilities, truths[video], caption)
            draw_ribbon(ribbon, file_of(folder, video, "-ribbon.png"))
            sure, present = (ribbon.prediction, ribbon.confidence), _instruments(frames, place)
            write_timeline(folder, timeline_of(video, times, ribbon.classes, *sure, ribbon.truth, present))

    def read_truth(self, path: Path, classes: Sequence[str]) -> FrameLabels:
        """The phases of an M2CAI text file."""
        return FrameLabels(*read_phase(path, classes))

    def variant(self) -> str:
        """The temporal model, and what is done to its predictions."""
        settings = self.settings
        named = [settings.temporal] if settings.temporal not in (NONE, *AUTO) else []
        return ", ".join([*named, *([f"post={settings.post}"] if settings.post != "none" else [])])


def _blocks(context: TaskContext, rows: FeatureRows, span: slice, align: bool) -> Iterator[Tensor]:
    """A video's pooled features [n, 2D], read a block at a time."""
    level = level_of(rows, span).transform if align else np.asarray
    for start in range(span.start, span.stop, _BLOCK):
        part = level(rows[start : min(start + _BLOCK, span.stop)])
        yield uploaded(part, context.device)


def _instruments(frames: LabelledFrames, place: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Instrument -> the seconds at which the dataset says whether it is there, and whether it is."""
    labels = next((frames.beside[kind] for kind in _INSTRUMENTS if kind in frames.beside), None)
    values = labels.values.get(frames.videos[place]) if labels else None
    if labels is None or values is None or isinstance(values, VideoMasks):
        return {}
    span = frames.span(place)
    known, there = values.at(frames.numbers[span], frames.times[span])
    seconds = frames.times[span][known]
    return {name: (seconds, there[known][:, k] == 1) for k, name in enumerate(labels.classes)} if len(seconds) else {}


def _labels_per_second(frames: LabelledFrames) -> float | None:
    """How many of the frames there are to a second of video; None where no video has two."""
    steps = [np.diff(frames.times[frames.span(place)]) for place in range(len(frames.videos))]
    steps = [each for each in steps if len(each)]
    return round(1 / float(np.median(np.concatenate(steps))), 6) if steps else None


def _ribbon(
    video: str,
    times: np.ndarray,
    classes: Sequence[str],
    probabilities: np.ndarray,
    truth: np.ndarray | None,
    caption: str,
) -> Ribbon:
    return Ribbon(video, times, classes, probabilities.argmax(1), probabilities.max(1), truth, caption)


def _write_table(path: Path, ribbon: Ribbon, numbers: np.ndarray, probabilities: np.ndarray, labels: str) -> Path:
    """A CSV with a row a frame: its number, seconds, the class's name, its truth where known, all probabilities."""
    names, truth = ribbon.classes, ribbon.truth

    def rows() -> Iterator[list[object]]:
        for i, number in enumerate(numbers.tolist()):
            row = [number, f"{ribbon.times[i]:.3f}", names[int(ribbon.prediction[i])]]
            if truth is not None:
                row.append(names[int(truth[i])] if truth[i] >= 0 else "")
            yield [*row, *(f"{value:.5f}" for value in probabilities[i])]

    return write_csv(path, ["frame", "seconds", labels, *([] if truth is None else ["truth"]), *names], rows())
