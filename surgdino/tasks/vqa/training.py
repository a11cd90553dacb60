"""Settings, training stage and answers of visual question answering."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from surgdino.config import BelowOne, Width
from surgdino.datasets.questions import Asked
from surgdino.errors import SurgdinoError
from surgdino.tasks.classifier.frame_inputs import FrameInputs, Inputs, frame_stage
from surgdino.tasks.context import TaskContext
from surgdino.tasks.labelled_frames import LabelledFrames
from surgdino.tasks.training.batches import Batch
from surgdino.tasks.training.stage import Stage, Validate
from surgdino.tasks.vqa.head import QuestionHead
from surgdino.tasks.vqa.learned import Learned
from surgdino.tasks.vqa.replies import WHOLE, Replies, Truth, truth_of
from surgdino.tasks.vqa.score import HEADLINE, macro_f1

DEFAULTS = {"epochs": 10, "batch_size": 64, "lr": 1e-3, "weight_decay": 0.05, "patience": 10}
_FROZEN = {"epochs": 20}
_TUNED = {"lr": 1e-4, "epochs": 5, "patience": 3, "drop_path": 0.1}


@dataclass(frozen=True)
class VqaSettings:
    """The `task` section; configs/task/vqa.yaml explains every key."""

    name: str
    question_width: Width
    pool_heads: Annotated[int, Field(ge=1, le=64)]
    hidden: Width
    dropout: BelowOne
    learned: Learned | None


def known(settings: VqaSettings) -> Learned:
    """What the training data say of the questions.

    Raises:
        SurgdinoError: nothing was learned.
    """
    if settings.learned is None:
        raise SurgdinoError("the questions are not known yet", place="task.learned", fix="train with surgdino finetune")
    return settings.learned


def vqa_stage(context: TaskContext, settings: VqaSettings, head: QuestionHead) -> Stage:
    """The head, together with what learns of the backbone."""
    frames, inputs, learned = context.parts["train"], FrameInputs(context, "patches"), known(settings)

    def loss(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        logits = model(*inputs.of_batch(batch), batch["asked"])
        return {"loss": F.cross_entropy(logits.flatten(0, 1), batch["answers"].flatten(), ignore_index=-1)}

    targets = {"asked": asked_places(frames, learned), "answers": pairs_of(frames)[..., 1].astype(np.int64)}
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
        places, _confidence, shown = reply(head, held(), asked, groups)
        return {HEADLINE: macro_f1(true, [context.classes[place] for place in places[shown >= 0]])}

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
    places = np.array([*map(learned.place, asked_of(frames).questions), -1], np.int64)
    return places[pairs_of(frames)[..., 0]]


@torch.no_grad()
def reply(
    head: QuestionHead, blocks: Iterable[Inputs], asked: np.ndarray, groups: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The most probable answers, their probabilities, and what was asked: int64, float32, int64 [rows, K].

    Args:
        blocks: inputs of n frames; the head is in evaluation mode.
        asked: int64 [n, K], see `QuestionHead.forward`.
        groups: int [n], ascending; frames of one group are asked the same and answered together, by the mean of their
            probabilities. None answers for each frame.

    Returns:
        A row a frame, or a group.
    """
    first = np.arange(len(asked)) if groups is None else np.unique(groups, return_index=True)[1]
    device, start, found = head.own.device, 0, list[tuple[np.ndarray, np.ndarray]]()
    total = None if groups is None else torch.zeros(len(first), asked.shape[1], head.log_prior.shape[1], device=device)
    for cls, patches in blocks:
        part = slice(start, start := start + len(cls))
        chances = head.probabilities(cls, patches, torch.from_numpy(asked[part]).to(device))
        if total is None or groups is None:
            found.append(_most(chances))
        else:
            total.index_add_(0, torch.from_numpy(groups[part]).to(device), chances)
    if total is not None and groups is not None:
        found.append(_most(total / torch.from_numpy(np.bincount(groups)).to(device)[:, None, None]))
    places, confidence = map(np.concatenate, zip(*found, strict=True))
    return places, confidence, asked[first]


def _most(chances: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The place of the highest and how high it is."""
    confidence, place = chances.max(-1)
    return place.cpu().numpy(), confidence.cpu().numpy()


def replies_of(
    head: QuestionHead,
    learned: Learned,
    classes: Sequence[str],
    blocks: Iterable[Inputs],
    frames: np.ndarray,
    asked: np.ndarray,
    questions: Sequence[str],
) -> Replies:
    """Replies to what one video's frames are asked, beside what the question alone is answered.

    Args:
        frames: int64 [n], their numbers.
        asked: int64 [n, K], places among what was learned.
        questions: the texts, of all pairs in their order.
    """
    groups = np.zeros(len(frames), np.int64) if learned.whole else None
    places, confidence, shown = reply(head, blocks, asked, groups)
    rows, columns = np.nonzero(shown >= 0)
    templates, best = shown[rows, columns].tolist(), learned.counts(classes).argmax(1)
    answers, alone = ([classes[k] for k in each] for each in (places[rows, columns], best[templates]))
    return Replies(
        frames=np.full(len(rows), WHOLE) if learned.whole else frames[rows],
        questions=questions,
        answers=answers,
        sentences=list(map(learned.said, templates, answers)),
        confidence=confidence[rows, columns],
        alone=(alone, list(map(learned.said, templates, alone))),
    )
