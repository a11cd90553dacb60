"""Questions about frames: the public layouts as written, and what is wrong with files, one line each."""

from __future__ import annotations

import json

import numpy as np
import pytest

from surgdino.datasets.card import card_names, load_card
from surgdino.datasets.open import open_dataset
from surgdino.datasets.questions import QUESTION, nearest_question, question_key, question_kinds, read_pairs
from surgdino.datasets.synthetic.questions import write_questions, write_surgvu
from surgdino.errors import SurgdinoError

LAYOUTS = [name for name in card_names() if load_card(name).adapter == "questions"]


def pairs_of(manifest, video: str) -> dict[int, list[tuple[str, str]]]:
    labels = manifest.labels[QUESTION]
    found = {}
    for number, rows in zip(labels.values[video].numbers.tolist(), labels.values[video].array.tolist(), strict=True):
        found[number] = [(labels.asked.questions[q], labels.classes[a]) for q, a, _ in rows if q >= 0]
    return found


@pytest.fixture(scope="module", params=LAYOUTS)
def written(request, tmp_path_factory):
    root = tmp_path_factory.mktemp(request.param)
    return request.param, root, write_questions(root, request.param, videos=2, frames=3)


def test_every_layout_is_read_as_it_was_written(written):
    name, root, truth = written
    manifest = open_dataset(load_card(name), root)
    assert not manifest.errors
    assert {video.id: pairs_of(manifest, video.id) for video in manifest.videos} == truth
    listed = load_card(name).questions.kinds
    assert list(manifest.labels[QUESTION].classes) == list(listed) or not listed


def test_published_lists_and_splits():
    counts = {
        name: (
            len(load_card(name).questions.kinds),
            *(len(each) for each in load_card(name).splits[split].values()),
        )
        for name, split in (("endovis18_vqa", "surgical-vqa"), ("cholec80_vqa", "surgical-vqa"), ("pitvqa", "pitvqa"))
    }
    assert counts == {"endovis18_vqa": (18, 11, 3), "cholec80_vqa": (13, 32, 8), "pitvqa": (59, 20, 5)}
    assert load_card("endovis18_vqa").operation_of(3) == "endovis18/seq_3", "as EndoVis 2018's own card says"
    assert load_card("cholec80_vqa").operation_of(3) == "camma/3"
    assert load_card("pitvqa").operation_of(3) == load_card("pitvis").operation_of(3)


@pytest.fixture
def pitvqa(tmp_path):
    write_questions(tmp_path, "pitvqa", videos=2, frames=3)
    return tmp_path


def opened(root, name="pitvqa", **options):
    return open_dataset(load_card(name), root, options=options)


def file_in(root):
    return root / "QA_Classification/video_01/001.txt"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("what is it?\n", "line 1: not a question and its answer; expected question|answer, found what is it?"),
        ("a|b|c\n", "not a question and its answer"),
        ("what?|\n", "not a question and its answer"),
        ("\n|suction\n", "line 2: not a question and its answer"),
        ("q|suction\nq|sucton\n", "line 2: an answer outside of the list; expected one of 59 answers, found sucton"),
        ("q|" + "a" * 1001, "too long; expected at most 1,000 letters, found 1001"),
        ("q|suction\n" * 201, "too many questions about one frame; expected at most 200, found 201"),
        ("\0", "not a text file"),
    ],
)
def test_a_malformed_file_is_one_line(pitvqa, text, told):
    file_in(pitvqa).write_text(text)
    (problem,) = opened(pitvqa).errors
    line = problem.error().line()
    assert told in line
    assert str(file_in(pitvqa)) in line
    assert "\n" not in line


def test_a_fault_in_many_files_is_told_once_a_video(pitvqa):
    for path in (pitvqa / "QA_Classification/video_01").iterdir():
        path.write_text("what\n")
    (problem,) = opened(pitvqa).errors
    assert "(and in 2 more files)" in problem.message


def test_answers_that_the_published_code_leaves_out_are_no_pairs_and_repeated_questions_count(pitvqa):
    file_in(pitvqa).write_text("q?|no_visible_instrument\nr?|suction\nr?|kerrisons\nr?|Suction\n\n")
    manifest = opened(pitvqa)
    assert not manifest.errors
    assert pairs_of(manifest, "video_01")[1] == [("r?", "suction"), ("r?", "kerrisons"), ("r?", "suction")]
    assert any("1 pairs with the answer no_visible_instrument" in note for note in manifest.notes)
    file_in(pitvqa).write_text("q?|no_visible_instrument\n")
    assert 1 not in pairs_of(opened(pitvqa), "video_01"), "a frame that is asked nothing has no label"


def test_files_without_a_picture_and_videos_without_files_are_told(pitvqa):
    (pitvqa / "images/video_01/002.png").unlink()
    (pitvqa / "QA_Classification/video_02").rename(pitvqa / "QA_Classification/video_03")
    told = " ".join(problem.error().line() for problem in opened(pitvqa).errors)
    assert "1 files of questions without a picture" in told
    assert "video_02 has no question labels" in told
    assert "labels without a video" in told


def test_sentences_of_a_release_are_answers_of_their_own(tmp_path):
    write_questions(tmp_path, "endovis18_vqa", videos=1, frames=2)
    folder = tmp_path / "seq_1/vqa"
    (folder / "Sentence").mkdir()
    for path in (folder / "Classification").iterdir():
        (folder / "Sentence" / path.name).write_text("what organ?|the organ is a kidney\n")
    assert opened(tmp_path, "endovis18_vqa", labels="sentences").labels[QUESTION].classes == ("the organ is a kidney",)
    with pytest.raises(SurgdinoError, match="no labels='sentence'"):
        opened(tmp_path, "endovis18_vqa", labels="sentence")
    write_questions(tmp_path / "other", "pitvqa", videos=1, frames=1)
    with pytest.raises(SurgdinoError, match="no labels='sentences'"):
        opened(tmp_path / "other", labels="sentences")


def test_own_videos_are_operations_of_their_own_or_joined_by_a_pattern(tmp_path):
    write_questions(tmp_path, "questions", videos=3, frames=2)
    (tmp_path / ".generated-by-surgdino").unlink()
    assert len(opened(tmp_path, "questions").operations) == 3
    joined = opened(tmp_path, "questions", operation_pattern="images/([0-2])|3")
    assert len(joined.operations) == 3
    assert "does not say the operation" in joined.errors[0].message


def test_clips_have_a_question_and_ways_to_answer_it(tmp_path):
    truth = write_surgvu(tmp_path)
    manifest = opened(tmp_path, "surgvu_vqa")
    labels = manifest.labels[QUESTION]
    assert labels.asked.whole
    assert labels.classes == ("No", "Yes")
    for name, (question, said) in truth.items():
        present, pairs = labels.values[name].at(np.arange(3), np.arange(3.0))
        assert present.all()
        asked, answer, ways = pairs[2, 0]
        assert (labels.asked.questions[asked], labels.classes[answer]) == (question, said[0])
        assert list(labels.asked.sentences[ways]) == said


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("case1_question.json", "{", "not valid JSON"),
        ("case1_question.json", "[1]", "expected"),
        ("case1_question.json", '"  "', "an empty text"),
        ("case1.json", '"Yes"', "expected"),
        ("case1.json", "[]", "expected"),
        ("case1.json", '["Yes", 3]', "expected"),
        ("case1.json", '["Yes", ""]', "expected"),
    ],
)
def test_a_malformed_clip_is_one_line(tmp_path, name, content, told):
    write_surgvu(tmp_path, cases=2)
    (tmp_path / "case1" / name).write_text(content)
    (problem,) = opened(tmp_path, "surgvu_vqa").errors
    assert told in problem.error().line()
    assert name in problem.error().line()


def test_a_clip_without_answers_or_frames_is_told(tmp_path):
    write_surgvu(tmp_path, cases=3)
    (tmp_path / "case1/case1.json").unlink()
    for path in (tmp_path / "case2/frames").iterdir():
        path.unlink()
    manifest = opened(tmp_path, "surgvu_vqa")
    assert {(p.severity, p.message) for p in manifest.problems} == {
        ("warning", "a case without a question or answers"),
        ("error", "a case without frames"),
    }
    assert list(manifest.labels[QUESTION].values) == ["case3"]


def test_the_real_clips(real_data):
    manifest = open_dataset(load_card("surgvu_vqa"), real_data / "surgvu25-vqa")
    assert not manifest.problems
    assert [video.id for video in manifest.videos] == [f"case{n}" for n in (122, 124, 126, 127, 129, 132)]
    labels = manifest.labels[QUESTION]
    assert len(labels.asked.questions) == 6
    assert {len(ways) for ways in labels.asked.sentences} == {5}
    file = real_data / "surgvu25-vqa/case122/case122.json"
    assert list(labels.asked.sentences[0]) == json.loads(file.read_text())


def test_questions_meet_by_their_words_and_the_nearest_is_found():
    assert question_key("What is the state of Prograsp_Forceps ?") == question_key(
        "what is the state of prograsp forceps"
    )
    known = {question_key(text): place for place, text in enumerate(("is the hook used?", "what is the phase?"))}
    assert nearest_question("Is the hook being used", known) == 0
    assert nearest_question("how many instruments are there", known) is None
    assert question_key("???") == "???"


def test_kinds_of_questions_are_those_that_share_answers():
    answers = {"q1": ["yes"], "q2": ["no", "yes"], "q3": ["0"], "q4": ["1"], "q5": ["idle"]}
    assert question_kinds(answers, {}) == {"q1": "no/yes", "q2": "no/yes", "q3": "0", "q4": "1", "q5": "idle"}
    kinds = {"0": "count", "1": "count", "idle": "state", "cut": "state"}
    assert question_kinds(answers, kinds) == {
        "q1": "no/yes",
        "q2": "no/yes",
        "q3": "count",
        "q4": "count",
        "q5": "state",
    }


def test_pairs_keep_their_lines(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffa?|b\r\n\r\n c? | d \r\n".encode())
    assert [(pair.question, pair.answer, pair.line) for pair in read_pairs(path)] == [("a?", "b", 1), ("c?", "d", 3)]
