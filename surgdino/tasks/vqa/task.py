"""Visual question answering from a list: questions about a frame or a clip, and the question alone beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import nn

from surgdino.datasets.card import Card
from surgdino.datasets.manifest import Manifest
from surgdino.datasets.questions import QUESTION
from surgdino.errors import SurgdinoError, first_of
from surgdino.metrics.scores import ScoreRequest, TaskScores
from surgdino.paths import file_of
from surgdino.tasks.classifier.frame_inputs import FrameInputs
from surgdino.tasks.context import TaskContext
from surgdino.tasks.labelled_frames import LabelledFrames, labels_of
from surgdino.tasks.request import PredictRequest
from surgdino.tasks.task import Task
from surgdino.tasks.training.stage import Stage
from surgdino.tasks.vqa.files import write_layout, write_replies
from surgdino.tasks.vqa.head import QuestionHead
from surgdino.tasks.vqa.learned import learn
from surgdino.tasks.vqa.picture import draw_replies
from surgdino.tasks.vqa.replies import Replies, Truth, truth_of
from surgdino.tasks.vqa.score import VqaScoring
from surgdino.tasks.vqa.training import (
    DEFAULTS,
    VqaSettings,
    asked_of,
    asked_places,
    known,
    replies_of,
    truths_of,
    vqa_stage,
)

_NAMED = 3  # questions in a note


class VqaTask(Task[VqaSettings, Replies]):
    """What is predicted of a video are the replies to what its labels ask."""

    Settings, LABELS, DEFAULTS = VqaSettings, QUESTION, DEFAULTS
    ASKS = True
    scoring = VqaScoring()

    def prepared(self, card: Card, manifest: Manifest) -> VqaTask:
        """With what the training part says of the questions."""
        learned = learn(manifest.part("train"), labels_of(manifest, QUESTION))
        return VqaTask(self.name, replace(self.settings, learned=learned))

    def build_head(self, context: TaskContext) -> QuestionHead:
        """The head."""
        settings = self.settings
        return QuestionHead(
            context.width,
            context.classes,
            known(settings),
            question_width=settings.question_width,
            pool_heads=settings.pool_heads,
            hidden=settings.hidden,
            dropout=settings.dropout,
        )

    def stages(self, context: TaskContext, head: nn.Module) -> Iterator[Stage]:
        """One."""
        assert isinstance(head, QuestionHead)
        yield vqa_stage(context, self.settings, head)

    def predict(self, context: TaskContext, head: nn.Module, frames: LabelledFrames) -> Iterator[tuple[str, Replies]]:
        """One video at a time; nothing is kept on disk."""
        for video, truth in truths_of(frames, context.classes).items():
            part = frames.of_videos([video])
            asked = asked_places(part, known(self.settings))
            yield video, self._replies(context, head, part, asked, truth.questions)

    def _replies(
        self, context: TaskContext, head: nn.Module, frames: LabelledFrames, asked: np.ndarray, questions: Sequence[str]
    ) -> Replies:
        assert isinstance(head, QuestionHead)
        blocks = FrameInputs(context, "patches").streamed(frames)
        return replies_of(head, known(self.settings), context.classes, blocks, frames.numbers, asked, questions)

    def evaluate(self, context: TaskContext, head: nn.Module, frames: LabelledFrames, folder: Path) -> TaskScores:
        """Every number; the replies go to `predictions/`, each beside the truth."""
        truths, replies = truths_of(frames, context.classes), dict(self.predict(context, head, frames))
        for video, found in replies.items():
            write_replies(folder / "predictions", video, found, truths[video])
        kinds, notes = asked_of(frames).kinds, self._notes(truths)
        request = ScoreRequest(truths, replies, context.classes, frames.operations, "all", mapping=kinds, notes=notes)
        return self.scoring.scores(request)

    def _notes(self, truths: Mapping[str, Truth]) -> list[str]:
        """Questions that training had nothing like."""
        learned, count = known(self.settings), 0
        strange: dict[str, None] = {}
        for truth in truths.values():
            for question in truth.questions:
                if learned.place(question) == len(learned.templates):
                    strange[question] = None
                    count += 1
        if not strange:
            return []
        return [f"{count:,} pairs ask what training had nothing like, such as {first_of([*strange], _NAMED, '; ')}"]

    def write(self, request: PredictRequest) -> dict[str, Path]:
        """A table of the replies, the same in the layout of the sets, and a picture.

        Asked are the questions that were given, else those that the dataset asks of the video, else all of training.
        """
        frames = request.frames
        asked, questions, truth = self._asked(request)
        replies = self._replies(request.context, request.head, frames, asked, questions)
        name, folder = request.source.name, request.folder
        picture = file_of(folder, name, ".png")
        return {
            "answers": write_replies(folder, name, replies, truth),
            "as labels": write_layout(folder, name, replies),
            "picture": draw_replies(replies, frames.numbers, frames.times, truth, name, request.caption, picture),
        }

    def _asked(self, request: PredictRequest) -> tuple[np.ndarray, Sequence[str], Truth | None]:
        """int64 [n, K] as the head takes them, the texts of all pairs, and the truth where it is known."""
        frames, learned = request.frames, known(self.settings)
        source, found = request.source.labels, request.labels()
        if source and source.asked and found is not None and found[0].any() and not request.questions:
            present, pairs = found
            pairs = np.where(present[:, None, None], pairs, -1)
            truth = truth_of(frames.numbers, pairs, source.asked, source.classes)
            places = np.array([*map(learned.place, source.asked.questions), -1], np.int64)
            return places[pairs[..., 0]], truth.questions, truth
        questions = request.questions or tuple(each.question for each in learned.templates)
        places = np.array([*map(learned.place, questions)])
        for question, place in zip(questions, places.tolist(), strict=True):
            if place == len(learned.templates):
                expected = first_of([each.question for each in learned.templates], _NAMED, "; ")
                fix = "ask it in the words of the training data: task.json in the checkpoint has all of them"
                what = "a question unlike any that was learned"
                raise SurgdinoError(what, place="questions", expected=expected, found=question, fix=fix)
        times = 1 if learned.whole else len(frames)
        return np.tile(places, (len(frames), 1)), [*questions] * times, None
