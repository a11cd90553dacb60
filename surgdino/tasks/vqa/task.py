"""Visual question answering from a list: questions about a frame or a clip, and the question alone beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from surgdino.backbone.vit import Backbone
from surgdino.datasets.card import Card
from surgdino.datasets.manifest import Manifest
from surgdino.datasets.questions import QUESTION
from surgdino.errors import SurgdinoError, first_of
from surgdino.exports.graph import Graph, Unpacked
from surgdino.metrics.scores import ScoreRequest, TaskScores
from surgdino.paths import file_of
from surgdino.tasks.classifier.frame_inputs import FrameInputs
from surgdino.tasks.context import TaskContext
from surgdino.tasks.labelled_frames import LabelledFrames, labels_of
from surgdino.tasks.prediction import Prediction
from surgdino.tasks.request import PredictRequest
from surgdino.tasks.task import Member, Task
from surgdino.tasks.training.stage import Stage
from surgdino.tasks.vqa.files import write_layout, write_replies
from surgdino.tasks.vqa.head import QuestionHead
from surgdino.tasks.vqa.learned import learn
from surgdino.tasks.vqa.picture import draw_replies
from surgdino.tasks.vqa.replies import WHOLE, Replies, Truth, truth_of
from surgdino.tasks.vqa.score import VqaScoring
from surgdino.tasks.vqa.settings import VqaSettings
from surgdino.tasks.vqa.training import (
    DEFAULTS,
    asked_of,
    chances_of,
    known,
    named,
    pairs_of,
    truths_of,
    vqa_stage,
)

_NAMED = 3  # questions in a note
_MOST = 200  # questions that are asked of every frame unasked
_LISTED = 20  # questions in a model card


@dataclass(frozen=True, repr=False)
class Answered(Prediction):
    """Attributes:
    replies: to each question: `frames` (-1: the whole video), `questions`, `answers`, `sentences`, `confidence`, and
        `chances`, float32 [m, C], of every answer.
    """

    replies: Replies


class VqaTask(Task[VqaSettings, Replies]):
    """What is predicted of a video are the replies to what its labels ask."""

    Settings, LABELS, DEFAULTS = VqaSettings, QUESTION, DEFAULTS
    ASKS = True
    PICTURE = "Right where every reply is; the wrong ones are named."
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
            ids = pairs_of(part)[..., 0]
            yield video, self.replies(context, head, part, ids, asked_of(part).questions, truth)

    def replies(
        self,
        context: TaskContext,
        head: nn.Module,
        frames: LabelledFrames,
        ids: np.ndarray,
        texts: Sequence[str],
        pairs: Truth,
    ) -> Replies:
        """Replies to what the frames of one video are asked.

        Args:
            ids: int [n, K], what each frame is asked, by its place in `texts`; -1 where no more.
            pairs: the frame and the text of each of the m questions.

        Raises:
            SurgdinoError: the frames are seen in a mirror, in which left is right.
        """
        assert isinstance(head, QuestionHead)
        if context.view.mirrored:
            what, fix = "questions about places have other answers in a mirror", "use averaging=scales or none"
            raise SurgdinoError(what, place="averaging", found="flips", fix=fix)
        learned, blocks = known(self.settings), FrameInputs(context, "patches").streamed(frames)
        groups = np.zeros(len(frames), np.int64) if learned.whole else None
        chances = chances_of(head, blocks, learned.placed(ids, texts), groups)
        return named(learned, context.classes, pairs.frames, pairs.questions, chances)

    def averaged(self, predictions: Sequence[Replies]) -> Replies:
        """By the mean of the probabilities; what the question alone is answered stays the first run's."""
        first = predictions[0]
        stacked = np.stack([each.chances for each in predictions if each.chances is not None])
        chances = np.asarray(stacked.mean(0, dtype=np.float64), np.float32)
        classes = self.members[0].context.classes
        return named(known(self.settings), classes, first.frames, first.questions, chances)

    def evaluate(self, context: TaskContext, head: nn.Module, frames: LabelledFrames, folder: Path) -> TaskScores:
        """Every number; the replies go to `predictions/`, each beside the truth."""
        truths, replies = truths_of(frames, context.classes), dict(self.predicted(context, head, frames))
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
        frames, name, folder = request.frames, request.source.name, request.folder
        replies, truth = self._replied(request)
        picture = file_of(folder, name, ".png")
        return {
            "answers": write_replies(folder, name, replies, truth),
            "as labels": write_layout(folder, name, replies),
            "picture": draw_replies(replies, frames.numbers, frames.times, truth, name, request.caption, picture),
        }

    def prediction(self, request: PredictRequest) -> Answered:
        """The replies."""
        return Answered.of(request, self.name, replies=self._replied(request)[0])

    def graphs(self, context: TaskContext, head: nn.Module) -> tuple[Graph, ...]:
        """The answers to every question of training at once: a file has no words to look a question up by."""
        assert isinstance(head, QuestionHead)
        questions, answers = self._questions(), len(context.classes)
        outputs = {"answers": f"[B, {len(questions)}, {answers}], probabilities of the answers to each question"}
        program = _AllAnswers(context.backbone, head, len(questions))
        lists = {"questions": questions}
        classes = {"answers": context.classes}
        return (Graph("model", program, context.shape, outputs, classes=classes, lists=lists),)

    def said(
        self, context: TaskContext, head: nn.Module, frames: LabelledFrames, images: Tensor
    ) -> Mapping[str, np.ndarray]:
        """The probabilities of each frame by itself."""
        assert isinstance(head, QuestionHead)
        asked = np.tile(np.arange(len(self._questions())), (len(frames), 1))
        found = chances_of(head, FrameInputs(context, "patches").streamed(frames), asked)
        return {"answers": found.reshape(*asked.shape, -1)}

    def remarks(self) -> list[str]:
        """What the rows of the answers are."""
        learned, questions = known(self.settings), self._questions()
        more = f" and {len(questions) - _LISTED} more, in the list `questions` of the file" * (len(questions) > _LISTED)
        whole = ["A clip is answered by the mean of its frames' probabilities"] * learned.whole
        return [f"Questions, rows of `answers` from 0: {' '.join(questions[:_LISTED])}{more}", *whole]

    def _questions(self) -> list[str]:
        return [each.question for each in known(self.settings).templates]

    def _replied(self, request: PredictRequest) -> tuple[Replies, Truth | None]:
        """The replies, and what is true where that is known."""
        ids, texts, pairs, is_true = self._asked(request)
        members = self.members or (Member(self, request.context, request.head),)
        found = []
        for each in members:
            assert isinstance(each.task, VqaTask)  # as `load_runs` has checked
            found.append(each.task.replies(each.context, each.head, request.frames, ids, texts, pairs))
        return self.averaged(found) if len(found) > 1 else found[0], pairs if is_true else None

    def _asked(self, request: PredictRequest) -> tuple[np.ndarray, Sequence[str], Truth, bool]:
        """What is asked, as `replies` takes it, and whether the answers are known."""
        frames, learned = request.frames, known(self.settings)
        source, found = request.source.labels, request.labels()
        if source and source.asked and found is not None and found[0].any() and not request.questions:
            pairs = np.where(found[0][:, None, None], found[1], -1)
            truth = truth_of(frames.numbers, pairs, source.asked, source.classes)
            return pairs[..., 0], source.asked.questions, truth, True
        learnt = self._questions()
        if not request.questions and len(learnt) > _MOST:
            what, expected = "too many questions were learned to ask all of them", f"at most {_MOST}"
            raise SurgdinoError(what, place="questions", expected=expected, found=len(learnt), fix="give questions=...")
        texts = request.questions or learnt
        for question in texts:
            if learned.place(question) == len(learnt):
                expected = first_of(learnt, _NAMED, "; ")
                fix = "ask it in the words of the training data: task.json in the checkpoint has all of them"
                what = "a question unlike any that was learned"
                raise SurgdinoError(what, place="questions", expected=expected, found=question, fix=fix)
        times = 1 if learned.whole else len(frames)
        numbers = np.full(len(texts), WHOLE) if learned.whole else np.repeat(frames.numbers, len(texts))
        ids = np.tile(np.arange(len(texts)), (len(frames), 1))
        return ids, texts, Truth(numbers, [*texts] * times, [], []), False


class _AllAnswers(nn.Module):
    """Pictures [B, 3, S, S] to the probabilities of the answers to each of Q questions, [B, Q, A]."""

    asked: Tensor

    def __init__(self, backbone: Backbone, head: QuestionHead, questions: int) -> None:
        super().__init__()
        self.backbone, self.head = Unpacked(backbone), head
        self.register_buffer("asked", torch.arange(questions)[None])

    def forward(self, images: Tensor) -> tuple[Tensor]:
        cls, patches = self.backbone(images)
        return (self.head.probabilities(cls, patches, self.asked.expand(cls.shape[0], -1)),)
