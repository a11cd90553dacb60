"""Questions answered from a list: numbers as scikit-learn's, a head that sees, the question alone beside it, files."""

from __future__ import annotations

import csv
import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn_metrics
from sklearn.exceptions import UndefinedMetricWarning

from surgdino.cli.main import main
from surgdino.config import shipped_settings
from surgdino.datasets.manifest import FrameLabels, Labels, Manifest, Video
from surgdino.datasets.questions import Asked, pair_array
from surgdino.datasets.synthetic.questions import write_questions
from surgdino.errors import SurgdinoError
from surgdino.metrics.scores import ScoreRequest, TaskScores
from surgdino.tasks.scoring.folders import Folders
from surgdino.tasks.scoring.scoring import open_scoring
from surgdino.tasks.task import open_task
from surgdino.tasks.vqa.files import write_replies
from surgdino.tasks.vqa.head import QuestionHead
from surgdino.tasks.vqa.learned import Learned, Template, learn
from surgdino.tasks.vqa.picture import _runs
from surgdino.tasks.vqa.replies import WHOLE, Replies, Truth, truth_of
from surgdino.tasks.vqa.task import VqaTask
from surgdino.tasks.vqa.training import known

LIST = ("no", "yes", "0", "1", "2", "idle")
QUESTIONS = {"is the hook used?": ("no", "yes"), "how many tools are there?": ("0", "1", "2")}


def drawn(pairs: int = 200, seed: int = 0) -> tuple[dict[str, Truth], dict[str, Replies]]:
    """Two videos of random pairs, two thirds of whose replies are right."""
    rng, truths, replies = np.random.default_rng(seed), {}, {}
    for video in ("a", "b"):
        asked = rng.choice(list(QUESTIONS), pairs).tolist()
        true, said, alone = ([str(rng.choice(QUESTIONS[q], p=None)) for q in asked] for _ in range(3))
        said = [t if rng.random() < 0.6 else s for t, s in zip(true, said, strict=True)]
        frames = np.arange(pairs)
        truths[video] = Truth(frames, asked, true, [(t,) for t in true])
        replies[video] = Replies(frames, asked, said, said, None, (alone, alone))
    return truths, replies


def panel(truths, replies, classes=LIST, **more):
    request = ScoreRequest(truths, replies, classes, {video: video for video in truths}, "all", **more)
    return open_scoring("vqa").scores(request)


def found(scores, protocol: str) -> dict[str, float]:
    return {row.name: row.value for row in scores.table if row.protocol == protocol}


def side(values: dict, name: str) -> list[str]:
    return [answer for each in values.values() for answer in getattr(each, name)]


# Scores.


def test_numbers_are_scikit_learns():
    truths, replies = drawn()
    scores = panel(truths, replies)
    true = side(truths, "answers")
    for mark, said in (
        ("", side(replies, "answers")),
        ("question-only ", [a for r in replies.values() for a in r.alone[0]]),
    ):
        pooled, script = found(scores, "vqa/pooled"), found(scores, "vqa/script")
        assert pooled[f"{mark}accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(true, said))
        assert pooled[f"{mark}macro F1"] == pytest.approx(sklearn_metrics.f1_score(true, said, average="macro"))
        assert pooled[f"{mark}balanced accuracy"] == pytest.approx(sklearn_metrics.balanced_accuracy_score(true, said))
        oracle = sklearn_metrics.precision_recall_fscore_support(true, said, average="macro", zero_division=1)[:3]
        assert [script[mark + name] for name in ("precision", "recall", "F score")] == pytest.approx(oracle)
    assert scores.headline == ("macro F1", pooled["macro F1"])
    one = next(row for row in scores.table if row.name == "accuracy")
    assert one.per_operation["a"] == pytest.approx(np.mean(np.array(truths["a"].answers) == replies["a"].answers))


def test_an_answer_that_is_never_replied_or_never_true_and_one_outside_of_the_list_are_scikit_learns():
    true, said = ["idle", "yes", "no", "yes", "1"], ["yes", "yes", "2", "yes", "bipolar"]
    frames, asked = np.arange(5), ["q"] * 5
    truths = {"v": Truth(frames, asked, true, [(t,) for t in true])}
    replies = {"v": Replies(frames, asked, said, said)}
    scores = panel(truths, replies)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        warnings.simplefilter("ignore", UserWarning)
        pooled = found(scores, "vqa/pooled")
        assert pooled["macro F1"] == pytest.approx(sklearn_metrics.f1_score(true, said, average="macro"))
        assert pooled["balanced accuracy"] == pytest.approx(sklearn_metrics.balanced_accuracy_score(true, said))
    oracle = sklearn_metrics.precision_recall_fscore_support(true, said, average="macro", zero_division=1)[:3]
    assert [found(scores, "vqa/script")[k] for k in ("precision", "recall", "F score")] == pytest.approx(oracle)
    assert any("1 answers are outside of the list and wrong, such as bipolar" in note for note in scores.notes)
    assert pooled["question-only accuracy"] == 0.4, "without training: the most frequent answer of the truth"
    assert any("most frequent answer to each question in this truth" in note for note in scores.notes)
    assert list(scores.classes[0].rows) == [answer for answer in LIST if answer != "0"]
    with pytest.raises(SurgdinoError, match="truth has an answer outside of the list"):
        panel(truths, replies, classes=("yes", "no"))


def test_numbers_by_kind_of_question():
    truths, replies = drawn()
    by_kind = panel(truths, replies, mapping={"0": "count", "1": "count", "2": "count"}).classes[1].rows
    assert list(by_kind) == ["count", "no/yes"]
    rows = [q == "is the hook used?" for q in side(truths, "questions")]
    true, said = (np.array(side(each, "answers"))[rows] for each in (truths, replies))
    assert by_kind["no/yes"]["macro F1"] == pytest.approx(sklearn_metrics.f1_score(true, said, average="macro"))
    assert sum(row["pairs"] for row in by_kind.values()) == 400


def test_sentences_are_scored_by_the_highest_reference_and_the_mean_over_pairs():
    ways = ("No", "No, forceps are not used.", "Forceps are not used here.")
    truths = {"v": Truth(np.full(2, WHOLE), ["q", "r"], ["No", "No"], [ways, ways[:1]])}
    said = ["no forceps are not used", "no"]
    scores = panel(truths, {"v": Replies(np.full(2, WHOLE), ["q", "r"], ["No", "No"], said)}, ("No",))
    assert found(scores, "vqa/bleu")["BLEU-4"] == pytest.approx((1 + 10**-0.75) / 2)
    assert found(scores, "vqa/bleu")["BLEU-1"] == 1
    assert found(scores, "vqa/corpus-bleu")["BLEU-2"] == pytest.approx((4 / 5) ** 0.5)  # NLTK counts a pair in "no"
    assert found(scores, "vqa/bleu")["question-only BLEU-4"] == pytest.approx(10**-0.75)


# What training says.


def labels_of(pairs: dict[str, list[list[tuple[int, str, int]]]], questions: tuple[str, ...], classes=LIST) -> tuple:
    places = {name: k for k, name in enumerate(classes)}
    values = {v: FrameLabels(range(len(f)), pair_array(f, places, 3)) for v, f in pairs.items()}
    labels = Labels("question", classes, values, Asked(questions, {}, (("Yes, there is.", "Yes."), ("It is yes.",))))
    videos = tuple(Video(v, v, Path(v), split="train") for v in pairs)
    return Manifest("toy", Path("toy"), videos, {"question": labels}), labels


def test_the_question_alone_is_the_most_frequent_answer_of_training_and_masks_are_those_of_its_kind():
    frames = [[(0, "yes", 0), (1, "1", -1)], [(0, "yes", 1)], [(0, "no", -1), (2, "yes", -1), (1, "1", -1)]]
    manifest, labels = labels_of({"v": frames}, ("is it?", "how many?", "was it?"))
    learned = learn(manifest, labels)
    assert [each.answers for each in learned.templates] == [{"yes": 2, "no": 1}, {"1": 2}, {"yes": 1}]
    prior = learned.log_prior(LIST)
    assert prior.argmax(1).tolist() == [1, 3, 1, 1]
    assert np.isfinite(prior).tolist() == [
        [True, True, False, False, False, False],
        [False, False, False, True, False, False],
        [True, True, False, False, False, False],
        [True, True, False, True, False, False],
    ]
    assert np.exp(prior).sum(1) == pytest.approx(1)
    assert learned.said(0, "yes") in ("Yes, there is.", "Yes.", "It is yes.")
    assert learned.said(2, "yes") == learned.said(0, "yes"), "another question's sentence is retrieved"
    assert learned.said(0, "no") == "no"
    assert learned.place("IS IT") == 0
    assert learned.place("which phase is shown in this frame?") == 3
    with pytest.raises(SurgdinoError, match="the training part asks nothing"):
        learn(replace(manifest, videos=()), labels)


def test_what_a_saved_head_says_of_questions_is_checked():
    odd = Learned((Template("is it?", {"maybe": 1}),), {}, False)
    with pytest.raises(SurgdinoError, match="an answer that is no class; expected one of 6, found maybe"):
        odd.log_prior(LIST)
    section = {**shipped_settings("task", "vqa"), "learned": {"templates": [], "kinds": {}, "whole": False}}
    with pytest.raises(SurgdinoError, match=r"task\.learned"):
        open_task(section)


def test_answers_meet_by_name_in_another_order():
    _, labels = labels_of({"v": [[(0, "yes", 0)], [(1, "1", -1), (0, "no", -1)]]}, ("is it?", "how many?"))
    turned = labels.in_classes(("Idle", "1", "2", "Yes", "No", "0"))
    assert turned is not None
    for each, classes in ((labels, LIST), (turned, turned.classes)):
        pairs = each.values["v"]
        truth = truth_of(pairs.numbers, pairs.array, each.asked, classes)
        assert [answer.lower() for answer in truth.answers] == ["yes", "1", "no"]
        assert truth.references[0] == ("Yes, there is.", "Yes.")
        assert truth.frames.tolist() == [0, 1, 1]


LEARNED = Learned((Template("is it?", {"no": 2, "yes": 2}), Template("how many?", {"0": 1, "1": 3})), {}, False)


def head_of(**settings) -> QuestionHead:
    torch.manual_seed(0)
    more = {"question_width": 16, "pool_heads": 2, "hidden": 32, "dropout": 0.0, **settings}
    return QuestionHead(8, LIST, LEARNED, **more)


def test_a_fresh_head_says_what_the_question_alone_says_and_no_answer_of_another_kind():
    head = head_of().eval()
    cls, patches = torch.randn(3, 8), torch.randn(3, 5, 8)
    asked = torch.tensor([[0, 1], [1, -1], [0, 2]])
    chances = head.probabilities(cls, patches, asked).detach()
    assert chances.shape == (3, 2, 6)
    assert torch.allclose(chances.sum(-1), torch.ones(3, 2))
    assert chances[0, 0, 2:].max() == 0
    assert chances[0, 1, [0, 1, 4, 5]].max() == 0
    assert chances[0, 1].argmax() == 3
    assert torch.equal(head.probabilities(cls, patches, asked.repeat(1, 70))[:, :2], chances)
    with pytest.raises(SurgdinoError, match=r"task\.pool_heads"):
        head_of(pool_heads=3)


def test_a_question_finds_in_the_patches_what_another_one_does_not_ask():
    """Two answers that lie in different directions of one patch, wherever it is."""
    torch.manual_seed(0)
    head, noise = head_of(), 0.3 * torch.randn(64, 5, 8)
    truth, place = torch.randint(0, 2, (64, 2)), torch.randint(0, 5, (64,))
    for row in range(64):
        noise[row, place[row], 0] = 8.0
        noise[row, place[row], 1] = 4.0 * (2 * truth[row, 0] - 1)
        noise[row, place[row], 2] = 4.0 * (2 * truth[row, 1] - 1)
    answers = torch.stack([truth[:, 0], truth[:, 1] + 2], 1)
    asked, cls = torch.tensor([[0, 1]]).expand(64, 2), torch.zeros(64, 8)
    optimizer = torch.optim.AdamW(head.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(head(cls, noise, asked).flatten(0, 1), answers.flatten()).backward()
        optimizer.step()
    assert (head(cls, noise, asked).argmax(-1) == answers).float().mean() > 0.95


# Files.


def scored(truth: Path, predictions: Path, **more: object) -> TaskScores:
    """What `surgdino score` prints of two folders."""
    given = {"protocol": "all", "classes": None, "fps": None, "tolerance_seconds": 10.0, "every": 1, "hd95": False}
    given |= {"missing": "refuse", "extra": "refuse", "out": None, **more}
    return open_scoring("vqa").score_folders(Folders(truth, predictions, **given))


def refusal(truth: Path, predictions: Path, **more: object) -> str:
    with pytest.raises(SurgdinoError) as error:
        scored(truth, predictions, **more)
    line = error.value.line()
    assert "\n" not in line
    return line


def score(tmp_path: Path, *words: str) -> dict:
    assert main(["score", "task=vqa", *words, f"out={tmp_path / 'scores'}"]) == 0
    return json.loads((tmp_path / "scores/results.json").read_text())


def values_of(results: dict, protocol: str = "vqa/pooled") -> dict[str, float]:
    return {row["name"]: row["value"] for row in results["scores"] if row["protocol"] == protocol}


@pytest.fixture
def sides(tmp_path) -> tuple[Path, Path]:
    """A set in EndoVis18-VQA's layout, and replies in the same: those of every third frame are `Suturing` to all."""
    write_questions(tmp_path / "set", "endovis18_vqa", videos=2, frames=3)
    for path in (tmp_path / "set").rglob("*_QA.txt"):
        copy = tmp_path / "replies" / path.relative_to(tmp_path / "set")
        copy.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text().splitlines()
        wrong = int(path.stem[5:8]) % 3 == 0
        copy.write_text("".join(f"{line.split('|')[0]}|Suturing\n" if wrong else line + "\n" for line in lines))
    return tmp_path / "set", tmp_path / "replies"


def test_anyones_replies_in_a_sets_own_layout(sides, tmp_path):
    truth, replies = sides
    scores = scored(truth, replies)
    assert found(scores, "vqa/pooled")["accuracy"] == pytest.approx(4 / 6)
    assert set(scores.table[0].per_operation) == {"seq_1", "seq_2"}
    results = score(tmp_path, f"truth={truth}", f"predictions={replies}", "dataset=endovis18_vqa")
    assert values_of(results)["accuracy"] == pytest.approx(4 / 6)
    assert set(results["classes"][1]["rows"]) == {"organ", "state", "place"}
    assert set(results["scores"][0]["per_operation"]) == {"endovis18/seq_1", "endovis18/seq_2"}


def test_frames_that_are_not_scored(sides):
    truth, replies = sides
    assert found(scored(truth, replies, every=3, extra="ignore"), "vqa/pooled")["accuracy"] == 0
    for path in truth.rglob("*000_QA.txt"):
        path.unlink()
    assert "no question to score; expected frames that 7 divides" in refusal(truth, replies, every=7)


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (
            lambda p: (p / "seq_1/vqa/Classification/frame001_QA.txt").unlink(),
            "1 of the truth's 3 frames have no prediction",
        ),
        (
            lambda p: (p / "seq_1/vqa/Classification/frame001_QA.txt").write_text("a|b\n"),
            "frame 1: a question has no reply",
        ),
        (
            lambda p: (p / "seq_1/vqa/Classification/frame001_QA.txt").write_text("a\n"),
            "line 1: not a question and its",
        ),
        (
            lambda p: (p / "seq_1/vqa/Classification/frame009_QA.txt").write_text("a|b\n"),
            "replies to questions that nobody",
        ),
        (
            lambda p: (p / "seq_1").rename(p / "seq_3"),
            "1 of 2 videos have no prediction; expected seq_1, found seq_2, seq_3",
        ),
    ],
    ids=["frame", "question", "malformed", "extra", "video"],
)
def test_replies_that_do_not_fit_are_one_line(sides, edit, told):
    edit(sides[1])
    assert told in refusal(*sides)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "the file is empty"),
        ("frame,answer\n", "row 1: wrong header; expected frame,question,answer, found frame,answer"),
        ("frame,question,answer\n1,q\n", "row 2: wrong number of columns; expected 3, found 2"),
        ("frame,question,answer\n-1,q,a\n", "row 2: not a frame number"),
        ("frame,question,answer\n1,,a\n", "row 2: a row without a question"),
        ("frame,question,answer\n1,q,\n", "row 2: a row without an answer"),
        ("frame,question,answer\n", "no rows under the header"),
        ("frame,question,answer\n1,q,a\n1,Q,b\n", "line 3: a question has more replies than it is asked; expected 1"),
        ("frame,question,answer\n1,r,a\n", "frame 1: a question has no reply; expected q"),
        ("frame,question,answer\n0,q,a\n", "all frames are shifted by -1"),
        ('frame,question,answer\n1,q,"' + "a" * 200_000, "not a CSV"),
    ],
)
def test_a_malformed_table_is_one_line(tmp_path, text, told):
    for folder in ("truth", "replies"):
        (tmp_path / folder).mkdir()
    (tmp_path / "truth/v.csv").write_text("frame,question,answer\n1,q,yes\n")
    (tmp_path / "replies/v.csv").write_text(text)
    assert told in refusal(tmp_path / "truth", tmp_path / "replies")


def test_a_question_that_is_asked_twice_takes_the_replies_in_their_order(tmp_path):
    header = "frame,question,answer\n"
    for folder, rows in (("truth", "1,q,a\n1,q,b\n2,q,a\n2,q,b\n"), ("replies", "1,q,a\n1,Q?,b\n2,q,a\n")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "v.csv").write_text(header + rows)
    assert found(scored(tmp_path / "truth", tmp_path / "replies"), "vqa/pooled")["accuracy"] == 0.75


def test_a_table_is_written_and_read_again_with_cells_that_a_spreadsheet_would_run(tmp_path):
    frames, asked = np.array([3, 3]), ["=is it?", "how many?"]
    replies = Replies(
        frames, asked, ["yes", "1"], ["Yes.", "One."], np.eye(2, dtype=np.float32), (["no", "1"], ["no", "1"])
    )
    path = write_replies(tmp_path / "replies", "v", replies, Truth(frames, asked, ["yes", "2"], [("yes",), ("2",)]))
    with path.open() as stream:
        rows = list(csv.DictReader(stream))
    assert rows[0]["question"] == "'=is it?"
    assert (rows[1]["confidence"], rows[1]["question_only"], rows[1]["truth"]) == ("1.0000", "1", "2")
    (tmp_path / "truth").mkdir()
    (tmp_path / "truth/v.csv").write_text('frame,question,answer,sentence\n3,=is it?,yes,Yes.\n3,"how many?",2,Two.\n')
    scores = scored(tmp_path / "truth", tmp_path / "replies")
    assert found(scores, "vqa/pooled")["accuracy"] == 0.5
    assert found(scores, "vqa/bleu")["BLEU-1"] == 0.5


def test_a_strip_is_broken_where_the_answer_changes_and_where_time_has_a_gap():
    starts = np.array([0.0, 1, 2, 9, 10])
    assert _runs(["a", "a", "b", "b", "b"], starts, starts + 1) == [(0, 1), (2, 2), (3, 4)]


def test_settings_have_bounds_and_nothing_is_answered_before_it_was_learned():
    settings = shipped_settings("task", "vqa")
    with pytest.raises(SurgdinoError, match=r"task\.hidden cannot be used"):
        open_task({**settings, "hidden": 0})
    task = open_task(settings)
    assert isinstance(task, VqaTask)
    with pytest.raises(SurgdinoError, match="the questions are not known yet"):
        known(task.settings)
