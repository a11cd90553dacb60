"""What training data say of the questions without any picture: which there are, their answers, how those are said.

This is the question-only baseline, in words that task.json holds; the head adds the picture to it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated

import numpy as np
from pydantic import Field

from surgdino.config import PositiveInt
from surgdino.datasets.manifest import FrameLabels, Labels, Manifest, SegmentLabels
from surgdino.datasets.questions import nearest_question, question_key, question_kinds, words_of
from surgdino.errors import SurgdinoError, shown
from surgdino.metrics.bleu import central

MOST_QUESTIONS = 5000
_COMPARED = 30  # sentences that say the same


@dataclass(frozen=True)
class Template:
    """A question of the training data.

    Attributes:
        question: its text.
        answers: answer -> how often it was given.
        sentences: answer -> how it is said, where sentences say it.
    """

    question: str
    answers: Annotated[dict[str, PositiveInt], Field(min_length=1)]
    sentences: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Learned:
    """All questions of the training data.

    Attributes:
        templates: the Q of them. A question that none is like has the place Q.
        kinds: answer -> kind of question, where the card says so.
        whole: whether they are about whole videos.
    """

    templates: Annotated[tuple[Template, ...], Field(min_length=1, max_length=MOST_QUESTIONS)]
    kinds: dict[str, str]
    whole: bool

    @cached_property
    def places(self) -> dict[str, int]:
        """Key of a question -> its place."""
        return {question_key(each.question): place for place, each in enumerate(self.templates)}

    def place(self, question: str) -> int:
        """The place of the template that is the question or most like it, or Q."""
        found = nearest_question(question, self.places)
        return len(self.templates) if found is None else found

    def placed(self, ids: np.ndarray, questions: Sequence[str]) -> np.ndarray:
        """The places of questions that are given by their numbers among `questions`; -1 stays so."""
        return np.array([*map(self.place, questions), -1], np.int64)[ids]

    def counts(self, classes: Sequence[str]) -> np.ndarray:
        """How often each template was answered so, int64 [Q + 1, classes]; the last row are all together."""
        table = np.zeros((len(self.templates) + 1, len(classes)), np.int64)
        places = {name: place for place, name in enumerate(classes)}
        for row, each in enumerate(self.templates):
            for answer, count in each.answers.items():
                if answer not in places:
                    what, expected = "an answer that is no class", f"one of {len(classes)}"
                    raise SurgdinoError(what, place="task.learned", expected=expected, found=shown(answer, 60))
                table[row, places[answer]] = count
        table[-1] = table.sum(0)
        return table

    def log_prior(self, classes: Sequence[str]) -> np.ndarray:
        """The logarithm of each answer's share, float32 [Q + 1, classes]; minus infinity of answers to other kinds.

        One pair more, with the shares of the template's kind, leaves each answer of the kind possible.
        """
        counts = self.counts(classes).astype(np.float64)
        names = question_kinds({each.question: each.answers for each in self.templates}, self.kinds)
        kinds = np.array([*names.values(), ""], dtype=str)
        of_kind = np.stack([counts[:-1][kinds[:-1] == kind].sum(0) if kind else counts[-1] for kind in kinds])
        share = of_kind / of_kind.sum(1, keepdims=True)
        with np.errstate(divide="ignore"):
            return np.log((counts + share) / (counts.sum(1, keepdims=True) + 1)).astype(np.float32)

    def words(self) -> tuple[list[str], np.ndarray]:
        """The W words of the questions, and float32 [Q + 1, W]: each question's shares of them; of the last, none."""
        listed = [words_of(each.question) or [each.question] for each in self.templates]
        words = sorted({word for each in listed for word in each})
        places, bags = {word: place for place, word in enumerate(words)}, np.zeros((len(listed) + 1, len(words)))
        for row, each in enumerate(listed):
            for word in each:
                bags[row, places[word]] += 1 / len(each)
        return words, bags.astype(np.float32)

    def said(self, template: int, answer: str) -> str:
        """How an answer to a template is said: as in training, to this question or to another; else as it is."""
        own = self.templates[template].sentences if template < len(self.templates) else {}
        return own.get(answer) or self._anywhere.get(answer, answer)

    @cached_property
    def _anywhere(self) -> dict[str, str]:
        return {answer: said for each in reversed(self.templates) for answer, said in each.sentences.items()}


def learn(manifest: Manifest, labels: Labels) -> Learned:
    """What the videos of a manifest say.

    Raises:
        SurgdinoError: no pair, or more different questions than a closed set has.
    """
    asked = labels.asked
    assert asked is not None
    answers: dict[int, Counter[str]] = {}
    said: dict[tuple[int, str], Counter[str]] = {}
    for video in manifest.videos:
        values = labels.values.get(video.id)
        if not isinstance(values, FrameLabels | SegmentLabels):
            continue
        pairs = values.array.reshape(-1, 3)
        found, counts = np.unique(pairs[pairs[:, 0] >= 0], axis=0, return_counts=True)
        for (question, answer, sentences), count in zip(found.tolist(), counts.tolist(), strict=True):
            name = labels.classes[answer]
            answers.setdefault(question, Counter())[name] += count
            if sentences >= 0:
                said.setdefault((question, name), Counter()).update(asked.sentences[sentences])
    if not answers or len(answers) > MOST_QUESTIONS:
        what = "the training part asks nothing" if not answers else "too many different questions for a closed set"
        expected = f"1 to {MOST_QUESTIONS:,} different questions"
        raise SurgdinoError(what, file=manifest.root, expected=expected, found=len(answers), fix="check data.split")
    templates = [_template(asked.questions[place], place, answers[place], said) for place in sorted(answers)]
    return Learned(tuple(templates), dict(asked.kinds), asked.whole)


def _template(
    question: str, place: int, answers: Mapping[str, int], said: Mapping[tuple[int, str], Counter[str]]
) -> Template:
    sentences = {}
    for answer in answers:
        if ways := said.get((place, answer)):
            sentences[answer] = central([text for text, _ in ways.most_common(_COMPARED)])
    return Template(question, dict(answers), sentences)
