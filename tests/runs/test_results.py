"""Results as files and tables: whole, plain JSON, the same bytes each time, a leak that nobody overlooks."""

from __future__ import annotations

import csv
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.text import Text

from surgdino.errors import SurgdinoError
from surgdino.metrics.scores import ClassTable, Score, TaskScores
from surgdino.runs.results import print_scores, write_results

FACTS = {"split": "rdv", "seed": 3, "checkpoint": Path("runs/a"), "versions": {"torch": "2"}, "share": np.float32(0.5)}


def scores(classes: int = 3) -> TaskScores:
    per_operation = {"camma/1": 0.75, "camma/2": math.nan, "camma/3": 1 / 3}
    accuracy = Score("accuracy", "phase/script", 0.5417, 0.1, 0.3, 0.8, 2, per_operation)
    recall = replace(
        accuracy, name="recall", value=math.nan, low=math.nan, high=math.nan, own_std=0.2, own_std_over="phases"
    )
    distance = replace(accuracy, name="hd95", protocol="x/other", value=123.456, unit="pixels")
    rows = {f"class [{n}]": {"recall": n / classes, "frames": 10 * n} for n in range(classes)}
    rows["class [0]"]["recall"] = math.nan
    return TaskScores(
        "phase",
        [accuracy, recall, distance],
        [ClassTable("phase", "phase/script", rows), ClassTable("phase", "x/other", {"elsewhere": {"recall": 1.0}})],
        3,
        ["x/relaxed was not computed: no fps"],
        accuracy,
    )


@pytest.fixture
def printed(capsys, monkeypatch):
    """Print scores on a terminal of some width; give the text, with its styles where there is a leak."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")

    def run(width: int, *arguments, **keywords) -> str:
        monkeypatch.setenv("COLUMNS", str(width))
        print_scores(*arguments, **keywords)
        text = capsys.readouterr().out
        return text if keywords.get("leakage") else Text.from_ansi(text).plain

    return run


def test_results_are_plain_json_with_null_for_undefined(tmp_path):
    path = write_results(tmp_path / "run", "phase", scores(), facts=FACTS)
    assert path == tmp_path / "run" / "results.json"
    read = json.loads(path.read_text(), parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert read["headline"] == {"name": "accuracy", "protocol": "phase/script", "value": 0.5417}
    assert (read["split"], read["seed"], read["checkpoint"], read["share"]) == ("rdv", 3, "runs/a", 0.5)
    accuracy, recall, distance = read["scores"]
    assert accuracy["per_operation"] == {"camma/1": 0.75, "camma/2": None, "camma/3": 1 / 3}
    assert accuracy["interval_95"] == [0.3, 0.8]
    assert accuracy["operations"] == 2
    assert recall["value"] is None
    assert recall["interval_95"] == [None, None]
    assert recall["std_over_phases"] == 0.2
    assert distance["unit"] == "pixels"
    assert read["classes"][0]["rows"]["class [0]"]["recall"] is None
    assert read["notes"] == scores().notes


def test_per_operation_has_a_row_an_operation_and_metric_in_full_precision(tmp_path):
    write_results(tmp_path, "phase", scores(), facts={})
    rows = list(csv.DictReader((tmp_path / "per_operation.csv").open()))
    assert len(rows) == 9
    assert rows[0] == {"operation": "camma/1", "protocol": "phase/script", "metric": "accuracy", "value": "0.75"}
    assert rows[1]["value"] == ""
    assert float(rows[2]["value"]) == 1 / 3


def test_the_same_scores_give_the_same_bytes(tmp_path):
    for folder in ("a", "b"):
        write_results(tmp_path / folder, "phase", scores(), facts=FACTS)
    for name in ("results.json", "per_operation.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["per_operation.csv", "results.json"]


def test_a_fact_may_not_take_the_place_of_the_numbers(tmp_path):
    with pytest.raises(ValueError, match="scores"):
        write_results(tmp_path, "phase", scores(), facts={"scores": 1})
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SurgdinoError, match=r"results\.json"):
        write_results(tmp_path / "file" / "run", "phase", scores(), facts={})


@pytest.mark.parametrize("width", [80, 140])
def test_the_headline_stands_above_one_matrix_of_all_protocols(printed, width):
    text = printed(width, scores())
    assert text.startswith("accuracy 54.2 % (95 % interval 30.0 to 80.0), phase/script, 3 operations\n")
    heads = next(line.split() for line in text.splitlines() if line.split()[:1] == ["metric"])
    assert heads == ["metric", "script", "x/other"]
    assert re.search(r"accuracy +54\.2 ± 10\.0", text)
    assert re.search(r"hd95 \(pixels\) +123\.5 ± 0\.1", text)
    assert "class [2]" not in text, "classes are for the report, or for details"
    assert "x/relaxed was not computed" in text
    assert all(len(line) <= width for line in text.splitlines())


def test_a_matrix_wider_than_the_screen_goes_on_below_without_a_loss(printed):
    row = scores().headline_row
    many = [replace(row, protocol=f"phase/protocol-{n}", value=n / 100) for n in range(20)]
    lines = printed(80, replace(scores(), table=many, headline_row=many[0])).splitlines()
    assert all(len(line) <= 80 for line in lines)
    words = " ".join(lines).split()
    assert all(f"protocol-{n}" in words and f"{n}.0" in words for n in range(20))


@pytest.mark.parametrize("width", [80, 140])
def test_details_are_a_table_a_protocol_with_intervals_and_the_classes(printed, width):
    text = printed(width, scores(), details=True)
    for words in ("54.2", "30.0 to 80.0", "protocol phase/script", "protocol x/other", "123.5", "± phases"):
        assert words in text
    assert "class [2]" in text, "brackets are no markup"
    assert "elsewhere" not in text, "classes are those of the headline's protocol"
    assert "x/relaxed was not computed" in text
    assert "…" not in text
    assert all(len(line) <= width for line in text.splitlines())
    assert ("█" in text) == (width > 100)


def test_a_leak_is_shown_in_red_above_the_numbers(printed):
    text = printed(80, scores(), leakage={"state": "shared", "stamp": "3 test operations were seen in pretraining"})
    assert "\x1b[1;31m" in text
    assert text.index("3 test operations were seen") < text.index("54.2")
    assert "LEAK" not in printed(80, scores())


def test_of_very_many_classes_the_most_frequent_are_shown(printed):
    many = " ".join(printed(80, scores(100), details=True).split())
    assert "70 rarer ones are in results.json" in many
    assert "class [99]" in many
    assert "class [69]" not in many
