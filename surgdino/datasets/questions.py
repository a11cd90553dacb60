"""Questions about frames and their answers: how a card says where they lie, how a file is read, what kinds there are.

A frame is asked any number of questions, the same one twice where it shows two of a thing. Its label is a row a pair:
the places of the question, of the answer, and of the sentences that say the answer (-1: the answer itself).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from surgdino.config import PositiveInt
from surgdino.datasets.class_names import class_finder
from surgdino.datasets.files import plain_name, read_text
from surgdino.errors import SurgdinoError, nearest, shown

QUESTION = "question"  # the kind of labels
MOST_PAIRS = 200  # of a frame
_MOST_LETTERS = 1000  # of a question or an answer
_Path = Annotated[str, Field(pattern=r"^[^#]*#[^#]*$")]


@dataclass(frozen=True, kw_only=True)
class QuestionLayout:
    """The `questions` of a card: where frames and questions lie, and which answers there are.

    Attributes:
        pictures: folders of a video's pictures inside the root, `#` being the video's number or name; releases differ.
        files: the folder of its text files, a line `question|answer` a pair.
        sentences: the same with whole sentences for answers.
        name: of a frame's text file without suffix, `#` being the frame's number.
        every: only frames whose number this divides are asked.
        answers: kind of question -> its answers; None where any answer counts.
        left_out: answers whose pairs are left out, as the published code does.
    """

    pictures: Annotated[tuple[_Path, ...], Field(min_length=1)]
    files: _Path
    sentences: _Path | None = None
    name: _Path = "#"
    every: PositiveInt = 1
    answers: dict[str, tuple[str, ...]] | None = None
    left_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        listed = [answer for answers in (self.answers or {}).values() for answer in answers]
        if len(set(listed)) < len(listed):
            found = next(answer for answer in listed if listed.count(answer) > 1)
            raise SurgdinoError("the card's answers cannot be used", expected="each once", found=found)

    @property
    def kinds(self) -> dict[str, str]:
        """Every answer that there is, in the order of their ids -> the kind of question that it answers."""
        return {answer: kind for kind, answers in (self.answers or {}).items() for answer in answers}


@dataclass(frozen=True)
class Asked:
    """What the numbers of such labels mean.

    Attributes:
        questions: as first written; two that `question_key` finds alike are one.
        kinds: answer -> the kind of question that it answers, where a card says so.
        sentences: ways to say an answer, of one pair.
        whole: whether the questions are about a video and not about each of its frames.
    """

    questions: tuple[str, ...]
    kinds: Mapping[str, str] = field(default_factory=dict)
    sentences: tuple[tuple[str, ...], ...] = ()
    whole: bool = False


@dataclass(frozen=True)
class Pair:
    """A question and its answer, the line they stand in, and ways to say the answer."""

    question: str
    answer: str
    line: int = 1
    sentences: tuple[str, ...] = ()


def folder_pattern(name: str, *, numbered: bool) -> re.Pattern[str]:
    """What matches the path of a folder in a layout, wherever it lies: `video` is the part with `#`, and `key` what
    stands there, a number without its zeros or a name."""
    key = r"0*(?P<key>\d{1,9})" if numbered else r"(?P<key>[^/]+)"
    parts = [re.escape(part).replace(r"\#", key) for part in name.split("/")]
    places = [f"(?P<video>{part})" if "?P<key>" in part else part for part in parts]
    return re.compile("(?:.*/)?" + "/".join(places), re.IGNORECASE)


@lru_cache(maxsize=1 << 14)
def question_key(question: str) -> str:
    """What all spellings of a question have in common: its words without case, accents' forms and marks."""
    return " ".join(words_of(question)) or question


def words_of(text: str) -> list[str]:
    """The words of a question."""
    return re.findall(r"[^\W_]+", plain_name(text).casefold())


def nearest_question(question: str, known: Mapping[str, int], least: float = 0.5) -> int | None:
    """The place of the question in `known` (keys as `question_key` gives them); else of the one most alike.

    Alike is the share of words that two have in common among those that one of them has (Jaccard).

    Args:
        least: below this nothing is alike.
    """
    if (exact := known.get(question_key(question))) is not None:
        return exact
    words, best, place = set(words_of(question)), 0.0, None
    for key, at in known.items():
        other = set(key.split())
        share = len(words & other) / max(len(words | other), 1)
        if share > best:
            best, place = share, at
    return place if best >= least else None


def question_kinds(answers: Mapping[str, Iterable[str]], kinds: Mapping[str, str]) -> dict[str, str]:
    """The kind of each question: questions that share an answer, or whose answers a card counts as one kind, are one.

    Args:
        answers: question -> the answers that it has.
        kinds: answer -> its kind by the card.

    Returns:
        Question -> the card's name of its kind (`state`), or its answers (`no/yes`).
    """
    leader: dict[str, str] = {}

    def find(node: str) -> str:
        while leader.setdefault(node, node) != node:
            node = leader[node]
        return node

    for question, given in answers.items():
        for answer in given:
            leader[find(f"a{answer}")] = find(f"q{question}")
            if answer in kinds:
                leader[find(f"k{kinds[answer]}")] = find(f"q{question}")
    members: dict[str, list[str]] = {}
    for node in leader:
        members.setdefault(find(node), []).append(node)
    names = {}
    for root, nodes in members.items():
        named, listed = (sorted(node[1:] for node in nodes if node[0] == sign) for sign in "ka")
        names[root] = "/".join(named or listed[:3]) + ("/..." if not named and len(listed) > 3 else "")
    return {question: names[find(f"q{question}")] for question in answers}


def read_pairs(path: Path) -> list[Pair]:
    """The lines `question|answer` of a text file; empty lines are none.

    Raises:
        SurgdinoError: it cannot be read, or a line is no question and answer, or too long.
    """
    pairs = []
    for place, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) != 2 or not all(cells):
            what, expected = "not a question and its answer", "question|answer"
            raise SurgdinoError(what, file=path, place=f"line {place}", expected=expected, found=shown(line, 60))
        if max(map(len, cells)) > _MOST_LETTERS:
            what, expected = "a question or an answer is too long", f"at most {_MOST_LETTERS:,} letters"
            raise SurgdinoError(what, file=path, place=f"line {place}", expected=expected, found=max(map(len, cells)))
        pairs.append(Pair(cells[0], cells[1], place))
    if len(pairs) > MOST_PAIRS:
        what, expected = "too many questions about one frame", f"at most {MOST_PAIRS}"
        raise SurgdinoError(what, file=path, expected=expected, found=len(pairs))
    return pairs


class Answers:
    """Gives answers their places: in a card's list, or in the order of the alphabet once all are known."""

    def __init__(self, layout: QuestionLayout) -> None:
        self.kinds, self.listed = layout.kinds, tuple(layout.kinds)
        self._find, self._left_out = class_finder(self.listed), class_finder(layout.left_out)

    def read(self, pair: Pair, path: Path) -> str | None:
        """The answer as the list spells it; None of one that is left out.

        Raises:
            SurgdinoError: the list lacks it.
        """
        if not self.listed:
            return pair.answer
        place = self._find(pair.answer)
        if place is not None:
            return self.listed[place]
        if self._left_out(pair.answer) is not None:
            return None
        what, expected = "an answer outside of the list", f"one of {len(self.listed)} answers"
        fix = nearest(pair.answer, self.listed)
        place_in_file = f"line {pair.line}"
        found = shown(pair.answer, 60)
        raise SurgdinoError(what, file=path, place=place_in_file, expected=expected, found=found, fix=fix)


class PairTable:
    """Collects the pairs of frames, and gives them numbers."""

    def __init__(self) -> None:
        self.questions: dict[str, tuple[int, str]] = {}  # key -> place, as first written
        self.answers: set[str] = set()
        self.sentences: dict[tuple[str, ...], int] = {}

    def add(self, pair: Pair, answer: str) -> tuple[int, str, int]:
        """(place of the question, answer, place of its sentences)."""
        key = question_key(pair.question)
        place, _ = self.questions.setdefault(key, (len(self.questions), pair.question))
        self.answers.add(answer)
        said = self.sentences.setdefault(pair.sentences, len(self.sentences)) if pair.sentences else -1
        return place, answer, said

    def asked(self, kinds: Mapping[str, str], *, whole: bool = False) -> Asked:
        """What the numbers mean."""
        return Asked(tuple(text for _, text in self.questions.values()), kinds, tuple(self.sentences), whole)


def pair_array(frames: Sequence[Sequence[tuple[int, str, int]]], places: Mapping[str, int], most: int) -> np.ndarray:
    """int32 [frames, most, 3]: question, answer and sentences of each pair; -1 where a frame has no more.

    Args:
        places: answer -> its place.
        most: pairs of the frame that has most of the dataset.
    """
    found = np.full((len(frames), most, 3), -1, np.int32)
    for row, pairs in enumerate(frames):
        for column, (question, answer, said) in enumerate(pairs):
            found[row, column] = question, places[answer], said
    return found
