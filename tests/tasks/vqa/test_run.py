"""A trained run that answers questions: its files, what `predict` asks, averages, and clips answered in sentences."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from surgdino.cli.main import main
from surgdino.datasets.synthetic.questions import write_questions, write_surgvu
from surgdino.metrics.bleu import sentence_bleu
from tests.tasks.sets import FP32, QUICK, SMALL, words_of
from tests.tasks.vqa.test_vqa import score, values_of


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """Trained on generated questions whose answers tell of the phase that is seen."""
    root = tmp_path_factory.mktemp("vqa")
    write_questions(root / "set", "pitvqa", videos=4, frames=16)
    assert main(words_of("vqa", root / "set", root / "run")) == 0
    return root / "run"


@pytest.mark.slow
def test_a_run_beats_the_question_alone_and_its_files_give_the_same_numbers(run, tmp_path):
    results = json.loads((run / "results.json").read_text())
    pooled = values_of(results)
    assert pooled["macro F1"] > pooled["question-only macro F1"] > 0
    task = json.loads((run / "checkpoint/task.json").read_text())
    known = task["settings"]["learned"]
    assert [each["question"] for each in known["templates"]][:2] == ["what is the step?", "what is the phase?"]
    assert sum(known["templates"][0]["answers"].values()) == 32, "of the training part alone"
    again = score(
        tmp_path,
        "dataset=pitvqa",
        f"truth={run.parent / 'set'}",
        f"predictions={run / 'predictions'}",
        "missing=ignore",
    )
    for name in ("accuracy", "macro F1", "balanced accuracy"):
        assert values_of(again)[name] == pooled[name]
    assert list(results["classes"][1]["rows"]) == sorted(
        ["step", "phase", "instrument", "count", "place", "operation note"]
    )


@pytest.mark.slow
def test_predict_asks_what_the_dataset_asks_or_what_it_is_given(run, tmp_path, capsys):
    video = run.parent / "set/images/video_04"
    assert main(["predict", str(video), f"checkpoint={run}", f"out={tmp_path / 'all'}"]) == 0
    table = (tmp_path / "all/video_04.csv").read_text()
    assert table == next((run / "predictions").glob("*.csv")).read_text()
    lines = (tmp_path / "all/video_04-answers/000003.txt").read_text().splitlines()
    assert [line.split("|")[0] for line in lines] == [
        f"what is the {k}?" for k in ("step", "phase", "instrument", "count", "place", "operation note")
    ]
    assert (tmp_path / "all/video_04.png").stat().st_size > 10_000
    asked = ["questions=[what is the current phase,WHAT IS THE STEP]", f"out={tmp_path / 'given'}"]
    assert main(["predict", str(video), f"checkpoint={run}", *asked]) == 0
    with (tmp_path / "given/video_04.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    with (tmp_path / "all/video_04.csv").open() as stream:
        phases = [row["answer"] for row in csv.DictReader(stream) if row["question"] == "what is the phase?"]
    assert [row["answer"] for row in rows if row["question"] == "what is the current phase"] == phases
    assert len(rows) == 32
    capsys.readouterr()
    assert main(["predict", str(video), f"checkpoint={run}", "questions=who won the match yesterday", asked[1]]) == 2
    assert "a question unlike any that was learned; expected what is the step?" in capsys.readouterr().err


@pytest.mark.slow
def test_runs_and_sizes_are_averaged_and_mirrors_are_refused(run, tmp_path, capsys):
    video = run.parent / "set/images/video_04"
    plain, twice, sizes = (tmp_path / name for name in ("plain", "twice", "sizes"))
    assert main(["predict", str(video), f"checkpoint={run}", f"out={plain}"]) == 0
    copy = shutil.copytree(run, tmp_path / "copy")
    assert main(["predict", str(video), f"checkpoint=[{run},{copy}]", f"out={twice}"]) == 0
    assert main(["predict", str(video), f"checkpoint={run}", "averaging=scales", f"out={sizes}"]) == 0
    tables = [(folder / "video_04.csv").read_text().splitlines() for folder in (plain, twice, sizes)]
    assert tables[0] == tables[1], "the mean of a run and its copy"
    assert tables[0] != tables[2]
    assert len(tables[0]) == len(tables[2])
    capsys.readouterr()
    assert main(["predict", str(video), f"checkpoint={run}", "averaging=flips", f"out={tmp_path / 'flips'}"]) == 2
    assert "questions about places have other answers in a mirror" in capsys.readouterr().err


@pytest.mark.slow
def test_clips_are_answered_once_in_sentences_and_as_the_challenge_wants_them(tmp_path):
    root = tmp_path / "set"
    clips = write_surgvu(root, cases=6)
    split = "data.split={train: [1, 2, 3, 4], test: [5, 6]}"
    place = (f"data.root={root}", f"data.store={tmp_path / 'store'}", f"run.dir={tmp_path / 'run'}")
    assert main(["finetune", "task=vqa", "dataset=surgvu_vqa", split, *SMALL, *FP32, *QUICK, *place]) == 0
    results = json.loads((tmp_path / "run/results.json").read_text())
    pooled, bleu = values_of(results), values_of(results, "vqa/bleu")
    assert (pooled["accuracy"], pooled["question-only accuracy"]) == (1, 0.5)
    assert bleu["BLEU-4"] > bleu["question-only BLEU-4"]
    assert (
        main(["predict", str(root / "case5/frames"), f"checkpoint={tmp_path / 'run'}", f"out={tmp_path / 'out'}"]) == 0
    )
    said = json.loads((tmp_path / "out/case5.json").read_text())
    assert said in ("Yes, there is blood.", "There is blood.")
    assert main(["evaluate", f"checkpoint={tmp_path / 'run'}"]) == 0
    (tmp_path / "json").mkdir()
    (tmp_path / "json/case5.json").write_text(json.dumps(said))
    again = score(tmp_path, f"truth={root}", f"predictions={tmp_path / 'json'}", "missing=ignore")
    assert values_of(again, "vqa/bleu")["BLEU-4"] == pytest.approx(sentence_bleu(said, clips["case5"][1])[3])
