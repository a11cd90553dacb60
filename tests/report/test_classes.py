"""A task's page: a bar a class, which is taken for which, and the best and worst frames where they were asked for."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from surgdino.errors import SurgdinoError
from surgdino.metrics.confusion import of_highest, of_ids, of_masks
from surgdino.report.examples import Scored, chosen, read_scored
from surgdino.report.page import write_page
from surgdino.report.record import read_run
from tests.report.test_page import write_results


def test_counts_of_ids_are_those_of_scikit_learn():
    from sklearn.metrics import confusion_matrix

    truth, found = np.random.default_rng(0).integers(0, 4, (2, 200))
    halves = [(truth[:80], found[:80]), (truth[80:], found[80:])]
    assert (np.array(of_ids(halves, "abcd", "letter").counts) == confusion_matrix(truth, found)).all()
    assert np.sum(of_ids([(np.array([-1, 2]), np.array([1, 2]))], "abcd", "letter").counts) == 1, "unlabelled"


def test_of_several_classes_frames_with_one_alone_count():
    truth = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 0, 1]])
    scores = np.array([[0.2, 0.6, 0.1], [1, 0, 0], [1, 0, 0], [0, 0, 0.1]])
    assert of_highest([(truth, scores)], "abc", "tool").counts == ((0, 1, 0), (0, 0, 0), (0, 0, 1))


def test_pixels_of_masks_count_by_what_is_there_and_what_was_found():
    truth, found = np.zeros((2, 2, 4, 4), bool)
    truth[0, :2], found[0, 0], found[1, 1:3] = True, True, True
    known = np.ones((4, 4), bool)
    known[3] = False
    assert of_masks(truth, found, known).tolist() == [[4, 4, 0], [0, 0, 0], [0, 4, 0]]


def test_the_page_shows_classes_and_says_where_a_value_is_undefined(tmp_path):
    folder = write_results(tmp_path / "run", {"camma/1": 0.5})
    results = json.loads((folder / "results.json").read_text())
    rows = {"<grasp>": {"recall": 0.5, "frames": 12}, "hook": {"recall": None, "frames": 0}}
    results["classes"] = [{"title": "tool", "protocol": "phase/script", "rows": rows}]
    counts = [[9, 3], [0, 0]]
    matrix = {"title": "tool", "rows": list(rows), "columns": list(rows), "counts": counts, "unit": "frames"}
    (folder / "results.json").write_text(json.dumps(results | {"confusions": [matrix]}))
    page = write_page([read_run(folder)], tmp_path / "report.html").read_text()
    section = re.search(r'<section id="classes">.*?</section>', page, re.DOTALL).group()
    assert "<grasp>" not in section
    for text in ("In no frame: hook", "12 frames", "Confusion by tool", "&lt;grasp&gt;", ">75<", ">25<"):
        assert text in section, text
    (folder / "results.json").write_text(json.dumps(results | {"confusions": [matrix | {"counts": [[1], [2, 3]]}]}))
    assert "confusion" in read_run(folder).left_out[0]


def test_a_frame_is_right_wrong_or_of_a_table_that_does_not_say(tmp_path):
    for rows, right in (("v,1,0.5,is a,yes\nv,2,0.1,is b,no\n", ["yes", "no"]), ("v,1,0.5,is a\n", [""])):
        (tmp_path / "per_frame.csv").write_text("video,frame,p,said,right\n" + rows)
        assert [each.right for each in read_scored(tmp_path / "per_frame.csv")[1]] == right


def test_frames_are_the_best_the_worst_and_those_between_and_no_neighbours():
    scored = [Scored("a", k, k / 100) for k in range(100)] + [Scored("b", 0, float("nan"))]
    kinds = chosen(scored, lambda each: float(each.frame))
    assert [each.frame for each in kinds["best"]] == [99, 89, 79, 69]
    assert [each.frame for each in kinds["worst"]] == [0, 10, 20, 30]
    assert 40 <= kinds["median"][0].frame <= 59
    assert len({each.frame for frames in kinds.values() for each in frames}) == 12
    assert chosen([], lambda each: 0.0) == {"best": [], "median": [], "worst": []}


@pytest.mark.parametrize("text", ["", "video\n", "video,frame,dice,said\nv,one,0.5,\n", "video,frame,dice,said\nv,1\n"])
def test_a_damaged_table_of_frames_is_one_line(tmp_path, text):
    (tmp_path / "per_frame.csv").write_text(text)
    with pytest.raises(SurgdinoError, match=r"per_frame\.csv"):
        read_scored(tmp_path / "per_frame.csv")
