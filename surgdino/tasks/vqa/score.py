"""How answers are scored: accuracy and macro averages over all pairs as scikit-learn's, and BLEU of sentences.

The question alone is scored beside: the answer that it had most often in training; or, where files say no such answer,
in the truth itself, which is the most that a model blind to the picture could reach in accuracy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from surgdino.datasets.class_names import class_finder
from surgdino.datasets.questions import question_key, question_kinds
from surgdino.errors import SurgdinoError
from surgdino.metrics.answers import HEADLINE, macro_numbers, script_numbers
from surgdino.metrics.arrays import pair_videos, ratio
from surgdino.metrics.bleu import ORDERS, bleu_counts, bleu_of, sentence_bleu, tokens
from surgdino.metrics.confusion import of_ids
from surgdino.metrics.intervals import operations_of
from surgdino.metrics.scores import (
    ClassTable,
    Confusion,
    FrameScores,
    Score,
    ScoreRequest,
    Statistic,
    TaskScores,
    chosen,
    find_row,
    score_rows,
    yes_no,
)
from surgdino.tasks.scoring.folders import Folders
from surgdino.tasks.scoring.scoring import Scoring
from surgdino.tasks.vqa.files import read_and_match
from surgdino.tasks.vqa.replies import WHOLE, Replies, Truth

POOLED, SCRIPT, BLEU, CORPUS = "vqa/pooled", "vqa/script", "vqa/bleu", "vqa/corpus-bleu"
_Numbers = Callable[[np.ndarray], Mapping[str, float]]
_ALONE = "question-only "
_WRONG = 3  # wrong replies beside a frame


class VqaScoring(Scoring):
    """Answers of a list, as classes and as sentences: `Truth` and `Replies` of each video."""

    PROTOCOLS = (POOLED, SCRIPT, BLEU, CORPUS)

    def panel(self, request: ScoreRequest) -> TaskScores:
        """Every number of the answers, and beside it that of the question alone.

        `request.mapping` says which kind of question an answer belongs to, where a card does.
        """
        protocols = chosen(request.protocol, self.PROTOCOLS, (POOLED, BLEU))
        videos = pair_videos(request.truths, request.predictions)
        owners = operations_of(videos, request.operations)
        truths = [request.truths[video] for video in videos]
        replies = [_checked(request.predictions[video], request.truths[video], video) for video in videos]
        notes, blind = list(request.notes), [each.alone for each in replies if each.alone]
        if len(blind) < len(replies):
            notes.append(
                "question-only: the most frequent answer to each question in this truth, as the predictions do not say "
                "what training data would answer"
            )
            blind = [*_most_frequent(truths)]
        answers = _Answers(request.classes, truths, [each.answers for each in replies], [said for said, _ in blind])
        if outside := answers.outside:
            count = sum(answer in outside for each in replies for answer in each.answers)
            notes.append(f"{count:,} answers are outside of the list and wrong, such as {min(outside)}")
        table: list[Score] = []
        for protocol in protocols:
            if protocol in (POOLED, SCRIPT):
                numbers: _Numbers = macro_numbers if protocol == POOLED else script_numbers
                own, other = answers.counts(1), answers.counts(2)
            else:
                sentence = protocol == BLEU
                numbers = _sentence_bleus if sentence else _corpus_bleus
                sums = _sentence_sums if sentence else _corpus_sums
                said = [each.sentences for each in replies], [sentences for _, sentences in blind]
                own, other = (np.stack([*map(sums, truths, each)]) for each in said)
            table += score_rows(_beside(numbers, own, other), owners, protocol)
        kinds = answers.kinds(truths, request.mapping or {})
        return TaskScores(
            "vqa",
            table,
            [answers.by_answer(), answers.by_kind(kinds)],
            len(set(owners)),
            notes,
            find_row(table, HEADLINE, POOLED),
            answers.confusions(kinds),
            _by_frame(videos, truths, replies, answers),
        )

    def read_and_score(self, folders: Folders) -> TaskScores:
        """The classes are those given, the card's, or the truth's answers in alphabetical order."""
        truths, replies = read_and_match(folders)
        kinds = folders.card.questions.kinds if folders.card and folders.card.questions else {}
        own = sorted({answer for truth in truths.values() for answer in truth.answers})
        request = folders.request(truths, replies, tuple(folders.classes or kinds or own))
        return self.scores(replace(request, mapping=kinds))


class _Answers:
    """All answers as places in `names`: those of the list, and after them the replies that are outside of it.

    Attributes:
        ids: of each video int64 [3, m]: true, replied, of the question alone.
        outside: those replies.

    Raises:
        SurgdinoError: the truth has an answer outside of the list.
    """

    def __init__(
        self,
        classes: Sequence[str],
        truths: Sequence[Truth],
        replied: Sequence[Sequence[str]],
        blind: Sequence[Sequence[str]],
    ) -> None:
        find = class_finder(classes)
        self.names, self.outside, places = list(classes), set[str](), dict[str, int]()

        def place(answer: str) -> int:
            if answer not in places:
                found = find(answer)
                if found is None:
                    found = len(self.names)
                    self.names.append(answer)
                    self.outside.add(answer)
                places[answer] = found
            return places[answer]

        true = [np.array([*map(place, truth.answers)], np.int64) for truth in truths]
        if self.outside:
            what, expected = "the truth has an answer outside of the list", f"one of {len(classes)} answers"
            raise SurgdinoError(what, expected=expected, found=min(self.outside), fix="check classes= and dataset=")
        others = [[np.array([*map(place, each)], np.int64) for each in side] for side in (replied, blind)]
        self.ids = [np.stack(each) for each in zip(true, *others, strict=True)]

    def counts(self, which: int, rows: Sequence[np.ndarray] | None = None) -> np.ndarray:
        """int64 [videos, 3, answers]: pairs in which an answer is right, replied, true.

        Args:
            which: 1 for the replies, 2 for the question alone.
            rows: bool [m] of each video, the pairs that count; None is all.
        """
        size, found = len(self.names), []
        for place, ids in enumerate(self.ids):
            true, said = ids[0], ids[which]
            if rows is not None:
                true, said = true[rows[place]], said[rows[place]]
            found.append([np.bincount(each, minlength=size) for each in (true[true == said], said, true)])
        return np.array(found)

    def by_answer(self) -> ClassTable:
        """Precision, recall and F1 of every answer of the list that is true or replied."""
        right, replied, true = self.counts(1).sum(0)
        measures = np.stack([ratio(right, replied), ratio(right, true), ratio(2 * right, replied + true)], 1)
        counted = zip(self.names, measures.tolist(), true.tolist(), replied.tolist(), strict=True)
        rows = {
            name: {**dict(zip(("precision", "recall", "f1"), each, strict=True)), "pairs": pairs, "replied": said}
            for name, each, pairs, said in counted
            if (pairs or said) and name not in self.outside
        }
        return ClassTable("answer", POOLED, rows)

    def kinds(self, truths: Sequence[Truth], kinds: Mapping[str, str]) -> list[np.ndarray]:
        """The kind of question of each pair, [m] texts of each video."""
        given: dict[str, set[str]] = {}
        for truth, ids in zip(truths, self.ids, strict=True):
            for question, answer in zip(truth.questions, ids[0].tolist(), strict=True):
                given.setdefault(question_key(question), set()).add(self.names[answer])
        names = question_kinds(given, kinds)
        return [np.array([names[question_key(question)] for question in truth.questions]) for truth in truths]

    def by_kind(self, kinds: Sequence[np.ndarray]) -> ClassTable:
        """The same numbers as of all pairs for each kind of question, and those of the question alone."""
        rows: dict[str, dict[str, float]] = {}
        for kind in np.unique(np.concatenate(kinds)).tolist():
            counts = [self.counts(which, [each == kind for each in kinds]).sum(0) for which in (1, 2)]
            own, blind = map(macro_numbers, counts)
            rows[kind] = {**own, **{_ALONE + name: value for name, value in blind.items()}}
            rows[kind]["pairs"] = int(counts[0][2].sum())
        return ClassTable("question", POOLED, rows)

    def confusions(self, kinds: Sequence[np.ndarray]) -> list[Confusion]:
        """Which answer is taken for which, a table a kind of question."""
        found, each = [], np.concatenate(kinds)
        true, said = (np.concatenate([ids[side] for ids in self.ids]) for side in (0, 1))
        for kind in np.unique(each).tolist():
            places = np.unique([true[each == kind], said[each == kind]])
            at, replied = (np.searchsorted(places, side[each == kind]) for side in (true, said))
            names = [self.names[place] for place in places]
            found.append(replace(of_ids([(at, replied)], names, f"answer ({kind})"), unit="pairs"))
        return found


def _sentence_sums(truth: Truth, said: Sequence[str]) -> np.ndarray:
    """Sums of BLEU-1 to BLEU-4 over the pairs, and how many there are, float64 [5]."""
    distinct = Counter(zip(said, map(tuple, truth.references), strict=True))
    sums = sum((count * sentence_bleu(one, ways) for (one, ways), count in distinct.items()), np.zeros(ORDERS))
    return np.append(sums, len(said))


def _corpus_sums(truth: Truth, said: Sequence[str]) -> np.ndarray:
    """What the BLEU of the corpus is made of, int64 [10]."""
    distinct = Counter(zip(said, map(tuple, truth.references), strict=True))
    counted = (count * bleu_counts(tokens(one), [*map(tokens, ways)]) for (one, ways), count in distinct.items())
    return sum(counted, np.zeros(2 * ORDERS + 2, np.int64))


def _sentence_bleus(sums: np.ndarray) -> dict[str, float]:
    return {f"BLEU-{order + 1}": float(ratio(sums[order], sums[-1])) for order in range(ORDERS)}


def _corpus_bleus(sums: np.ndarray) -> dict[str, float]:
    return {f"BLEU-{order + 1}": float(value) for order, value in enumerate(bleu_of(sums, smooth=False))}


def _by_frame(
    videos: Sequence[str], truths: Sequence[Truth], replies: Sequence[Replies], answers: _Answers
) -> FrameScores:
    """The share of a frame's questions that are answered right, and what is wrong; of clips nothing."""
    rows = []
    for video, truth, reply, ids in zip(videos, truths, replies, answers.ids, strict=True):
        right, order = ids[0] == ids[1], np.argsort(truth.frames, kind="stable")
        frames, starts = np.unique(truth.frames[order], return_index=True)
        for frame, of in zip(frames.tolist(), np.split(order, starts[1:]), strict=True):
            if frame != WHOLE:
                wrong = [k for k in of.tolist() if not right[k]][:_WRONG]
                said = [f"{truth.questions[k]} {reply.answers[k]} ({truth.answers[k]})" for k in wrong]
                rows.append((video, frame, float(right[of].mean()), "; ".join(said), yes_no(not wrong)))
    return FrameScores("share of its questions answered right", rows)


def _beside(numbers: _Numbers, own: np.ndarray, blind: np.ndarray) -> Statistic:
    """The numbers of some videos' summed counts [videos, ...], and those of the question alone."""

    def statistic(rows: np.ndarray) -> dict[str, float]:
        alone = numbers(blind[rows].sum(0))
        return {**numbers(own[rows].sum(0)), **{_ALONE + name: value for name, value in alone.items()}}

    return statistic


def _most_frequent(truths: Sequence[Truth]) -> list[tuple[list[str], list[str]]]:
    """For each video's questions the answer that each has most often in all of them, and how it is said first."""
    counts: dict[str, Counter[str]] = {}
    said: dict[str, str] = {}
    for truth in truths:
        for question, answer, ways in zip(truth.questions, truth.answers, truth.references, strict=True):
            counts.setdefault(question_key(question), Counter())[answer] += 1
            said.setdefault(answer, ways[0])
    best = {key: max(sorted(found), key=found.__getitem__) for key, found in counts.items()}
    answers = [[best[question_key(question)] for question in truth.questions] for truth in truths]
    return [(each, [said[answer] for answer in each]) for each in answers]


def _checked(replies: Replies, truth: Truth, video: str) -> Replies:
    if len(replies) != len(truth):
        what = "questions and replies differ in number"
        raise SurgdinoError(what, place=video, expected=len(truth), found=len(replies))
    return replies
