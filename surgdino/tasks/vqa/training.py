"""Settings, training stage and answers of visual question answering."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from surgdino.datasets.questions import Asked
from surgdino.errors import SurgdinoError
from surgdino.metrics.answers import HEADLINE, macro_f1
from surgdino.tasks.classifier.frame_inputs import FrameInputs, Inputs, frame_stage
from surgdino.tasks.context import TaskContext
from surgdino.tasks.labelled_frames import LabelledFrames
from surgdino.tasks.training.batches import Batch
from surgdino.tasks.training.stage import Stage, Validate
from surgdino.tasks.vqa.head import QuestionHead
from surgdino.tasks.vqa.learned import Learned
from surgdino.tasks.vqa.replies import Replies, Truth, truth_of
from surgdino.tasks.vqa.settings import VqaSettings
from surgdino.transfers import uploaded

DEFAULTS = {"epochs": 10, "batch_size": 64, "lr": 1e-3, "weight_decay": 0.05, "patience": 10}
_FROZEN = {"epochs": 20}
_TUNED = {"lr": 1e-4, "epochs": 5, "patience": 3, "drop_path": 0.1}


def known(settings: VqaSettings) -> Learned:
    """What the training data say of the questions.

    Raises:
        SurgdinoError: nothing was learned.
    """
    if settings.learned is None:
        raise SurgdinoError("the questions are not known yet", place="task.learned", fix="train with surgdino finetune")
    return settings.learned


def vqa_stage(context: TaskContext, settings: VqaSettings, head: QuestionHead) -> Stage:
    """The head, together with what learns of the backbone.

    The loss is the mean over pairs: their sum over the frames of a batch, by the pairs that a frame of the training
    part has in the mean, so that it is the same however many processes share a batch.
    """
    frames, inputs, learned = context.parts["train"], FrameInputs(context, "patches"), known(settings)

    def loss(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        logits, answers = model(*inputs.of_batch(batch), batch["asked"]), batch["answers"]
        total = F.cross_entropy(logits.flatten(0, 1), answers.flatten(), ignore_index=-1, reduction="sum")
        return {"loss": total / (len(answers) * pairs)}

    targets = {"asked": asked_places(frames, learned), "answers": pairs_of(frames)[..., 1].astype(np.int64)}
    pairs = float((targets["asked"] >= 0).sum(1).mean())
    val = context.parts.get("val")
    validate = None if val is None else _validation(context, learned, head, val)
    given: dict[str, Mapping[str, Any]] = {"defaults": DEFAULTS, "frozen": _FROZEN, "tuned": _TUNED}
    return frame_stage("answers", inputs, head, inputs.data(frames, targets), loss, validate, **given, head_factor=10)


def _validation(context: TaskContext, learned: Learned, head: QuestionHead, frames: LabelledFrames) -> Validate:
    """Macro F1 over all pairs."""
    held, asked = FrameInputs(context, "patches").held(frames), asked_places(frames, learned)
    true = [answer for truth in truths_of(frames, context.classes).values() for answer in truth.answers]
    groups = frames.video_of if learned.whole else None

    def validate(_: nn.Module) -> dict[str, float]:
        best = chances_of(head, held(), asked, groups).argmax(1)
        return {HEADLINE: macro_f1(true, [context.classes[place] for place in best.tolist()])}

    return validate


def pairs_of(frames: LabelledFrames) -> np.ndarray:
    """int [n, most, 3], the labels of the frames."""
    if frames.targets is None:
        raise ValueError("these frames are asked nothing")
    return frames.targets


def asked_of(frames: LabelledFrames) -> Asked:
    """What the numbers of their labels mean."""
    if frames.labels is None or frames.labels.asked is None:
        raise ValueError("these frames are asked nothing")
    return frames.labels.asked


def truths_of(frames: LabelledFrames, classes: Sequence[str]) -> dict[str, Truth]:
    """Video -> what is true."""
    numbers, pairs, asked = frames.numbers_of(), frames.truths(), asked_of(frames)
    return {video: truth_of(numbers[video], pairs[video], asked, classes) for video in frames.videos}


def asked_places(frames: LabelledFrames, learned: Learned) -> np.ndarray:
    """int64 [n, most], the places among what was learned of the questions that frames are asked; -1 where no more."""
    return learned.placed(pairs_of(frames)[..., 0], asked_of(frames).questions)


@torch.no_grad()
def chances_of(
    head: QuestionHead, blocks: Iterable[Inputs], asked: np.ndarray, groups: np.ndarray | None = None
) -> np.ndarray:
    """The probabilities of the answers to each question that is asked, float32 [m, A], frame by frame.

    Args:
        blocks: inputs of n frames; the head is in evaluation mode.
        asked: int64 [n, K], see `QuestionHead.forward`.
        groups: int [n], ascending from 0; frames of one group are asked the same and answered once, by the mean of
            their probabilities. None answers for each frame.
    """
    device, start, found = head.own.device, 0, list[Tensor]()
    first = np.unique(groups, return_index=True)[1] if groups is not None else np.empty(0, np.int64)
    total = torch.zeros(len(first), asked.shape[1], head.log_prior.shape[1], device=device)
    for cls, patches in blocks:
        part = slice(start, start := start + len(cls))
        chances = head.probabilities(cls, patches, uploaded(asked[part], device))
        if groups is None:
            found.append(chances.flatten(0, 1)[uploaded(np.flatnonzero(asked[part] >= 0), device)])
        else:
            total.index_add_(0, uploaded(groups[part], device), chances)
    if groups is None:
        return torch.cat(found).cpu().numpy()
    mean = total.cpu().numpy() / np.bincount(groups)[:, None, None]
    return mean[asked[first] >= 0].astype(np.float32)


def named(
    learned: Learned, classes: Sequence[str], frames: np.ndarray, questions: Sequence[str], chances: np.ndarray
) -> Replies:
    """Replies in words, beside what the question alone is answered.

    Args:
        frames: int64 [m], the frame of each question.
        questions: m texts.
        chances: float32 [m, A].
    """
    place_of = {question: learned.place(question) for question in dict.fromkeys(questions)}
    places, blind = [place_of[question] for question in questions], learned.counts(classes).argmax(1)
    answers = [classes[k] for k in chances.argmax(1).tolist()]
    alone = [classes[blind[place]] for place in places]
    sentences, said_alone = (list(map(learned.said, places, each)) for each in (answers, alone))
    return Replies(frames, questions, answers, sentences, chances, (alone, said_alone))
