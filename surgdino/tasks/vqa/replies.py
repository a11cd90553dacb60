"""Questions about a video with their answers: what is true, and what was replied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from surgdino.datasets.questions import Asked

WHOLE = -1  # in the place of a frame's number, of a question about the whole video


@dataclass(frozen=True)
class Truth:
    """m questions about one video.

    Attributes:
        frames: int64 [m], ascending frame numbers; WHOLE of the whole video.
        questions, answers: m texts each.
        references: ways to say each answer.
    """

    frames: np.ndarray
    questions: Sequence[str]
    answers: Sequence[str]
    references: Sequence[Sequence[str]]

    def __len__(self) -> int:
        return len(self.questions)


@dataclass(frozen=True)
class Replies:
    """What was replied to m questions, in their order.

    Attributes:
        frames, questions: as in `Truth`.
        answers: m texts, of the list or not.
        sentences: the answers as sentences; the answers themselves where nothing says them otherwise.
        chances: float32 [m, A], the probability of each answer of the list; None where nobody says it.
        alone: what the question alone is answered, from training, and how it is said; None where nobody knows.
    """

    frames: np.ndarray
    questions: Sequence[str]
    answers: Sequence[str]
    sentences: Sequence[str]
    chances: np.ndarray | None = None
    alone: tuple[Sequence[str], Sequence[str]] | None = None

    def __len__(self) -> int:
        return len(self.questions)

    @property
    def confidence(self) -> np.ndarray:
        """float [m], the probability of the answer; NaN where nobody says it."""
        return np.full(len(self), np.nan) if self.chances is None else self.chances.max(1, initial=0)


def truth_of(numbers: np.ndarray, pairs: np.ndarray, asked: Asked, classes: Sequence[str]) -> Truth:
    """The truth of a video's labelled frames, pair by pair; of a question about the whole video once.

    Args:
        numbers: int64 [n], of the frames.
        pairs: int [n, most, 3], their labels.
        classes: the answers.
    """
    pairs = pairs[:1] if asked.whole else pairs
    rows, columns = np.nonzero(pairs[..., 0] >= 0)
    found = pairs[rows, columns].tolist()
    answers = [classes[answer] for _, answer, _ in found]
    return Truth(
        frames=np.full(len(rows), WHOLE) if asked.whole else numbers[rows],
        questions=[asked.questions[question] for question, _, _ in found],
        answers=answers,
        references=[asked.sentences[said] if said >= 0 else (classes[answer],) for _, answer, said in found],
    )
