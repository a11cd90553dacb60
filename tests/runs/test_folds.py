"""Results of several runs as one results.json, one table, one report; and compared with those of another folder."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from surgdino.cli.main import main
from surgdino.errors import SurgdinoError
from surgdino.metrics.scores import Confusion, Score, TaskScores
from surgdino.runs.folds import is_finished, print_together, write_together
from surgdino.runs.results import RESULTS, write_results

RUNS = {f"fold{fold}-seed{seed}": (f"fold{fold}", seed) for fold in (1, 2) for seed in (0, 1)}
NAN = float("nan")


def write_folds(folder: Path, operations: int = 4, gain: float = 0.0, **facts: object) -> np.ndarray:
    """A folder of four runs, `operations` in each fold; gives accuracy, float [folds, seeds, operations]."""
    table = np.random.default_rng(3).uniform(0.3, 0.6, (2, 2, operations)) + gain
    for name, (fold, seed) in RUNS.items():
        values = table[int(fold[-1]) - 1, seed]
        each = {f"camma/{fold[-1]}{k}": float(value) for k, value in enumerate(values)}
        rows = [Score("accuracy", "phase/script", float(values.mean()), 0.1, NAN, NAN, operations, each)]
        rows.append(Score("hd95", "phase/script", 12.5, 0.1, NAN, NAN, operations, each, unit="pixels"))
        if fold == "fold1":
            rows.append(Score("accuracy", "phase/relaxed", 0.5, NAN, NAN, NAN, operations, each))
        confusion = Confusion("phase", ["a", "b"], ["a", "b"], np.array([[1, 2], [0, seed]]))
        scores = TaskScores("phase", rows, [], operations, ["a note"], rows[0], [confusion])
        stamp = facts.get("stamp") if fold == "fold2" else None
        known = {"leakage": {"stamp": stamp}, "split": fold, "seed": seed, "backbone": "frozen"}
        write_results(folder / name, "phase", scores, facts={**known, "environment": {"data_hash": "abc"}})
    (folder / "config.yaml").write_text(yaml.safe_dump({"task": {"name": "phase"}, "train": {"seed": 0}}))
    return table


def test_every_measure_is_there_over_folds_seeds_and_operations(tmp_path, capsys):
    table = write_folds(tmp_path)
    results = write_together(tmp_path, RUNS, {"surgdino": "1"})
    assert results == json.loads((tmp_path / RESULTS).read_text())
    assert (results["folds"], results["seeds"], results["operations"]) == (["fold1", "fold2"], [0, 1], 8)
    assert results["backbone"] == "frozen"
    assert "split" not in results
    assert [table["counts"] for table in results["confusions"]] == [[[4, 8], [0, 2]]]
    accuracy = results["scores"][0]
    assert results["headline"]["value"] == accuracy["value"] == pytest.approx(table.mean())
    assert accuracy["std_over_folds"] == pytest.approx(table.mean((1, 2)).std(ddof=1))
    assert accuracy["std_over_seeds"] == pytest.approx(table.mean((0, 2)).std(ddof=1))
    assert accuracy["std_over_operations"] == pytest.approx(table.mean(1).std(ddof=1))
    assert accuracy["interval_95"][0] < accuracy["mean_over_operations"] < accuracy["interval_95"][1]
    assert accuracy["per_run"] == {name: pytest.approx(table[i // 2, i % 2].mean()) for i, name in enumerate(RUNS)}
    assert results["notes"] == ["a note", "left out, since not every run has them: phase/relaxed/accuracy"]
    with (tmp_path / "per_operation.csv").open() as stream:
        first = next(csv.DictReader(stream))
    assert (first["operation"], float(first["value"])) == ("camma/10", pytest.approx(table[0, :, 0].mean()))
    print_together(results)
    said = capsys.readouterr().out
    for name in (*RUNS, "mean over folds and seeds", "± folds", "± seeds", "mean over 8 operations", "95 % interval"):
        assert name in said
    assert f"{100 * table.mean():.1f}" in said


def test_below_six_operations_every_one_has_a_row_and_there_is_no_interval(tmp_path, capsys):
    write_folds(tmp_path, operations=2)
    print_together(write_together(tmp_path, RUNS, {}))
    said = capsys.readouterr().out
    assert "95 % interval" not in said
    assert all(f"camma/{fold}{k}" in said for fold in (1, 2) for k in (0, 1))


def test_a_leak_in_one_fold_stamps_the_whole(tmp_path, capsys):
    write_folds(tmp_path, stamp="1 of 4 tested operations had been seen")
    results = write_together(tmp_path, RUNS, {})
    assert results["leakage"]["stamp"] == "fold2-seed0, fold2-seed1: 1 of 4 tested operations had been seen"
    print_together(results)
    assert "LEAK" in capsys.readouterr().out


def test_the_report_shows_all_runs_and_two_folders_are_compared_by_operation(tmp_path, capsys):
    for name, gain in (("one", 0.0), ("other", 0.2)):
        write_folds(tmp_path / name, gain=gain)
        write_together(tmp_path / name, RUNS, {})
    assert main(["report", str(tmp_path / "one")]) == 0
    page = (tmp_path / "one" / "report.html").read_text()
    assert "Folds and seeds" in page
    assert all(name in page for name in RUNS)
    assert "over 2 folds ±" in page
    assert "mean over operations" in page
    capsys.readouterr()
    assert main(["compare", str(tmp_path / "one"), str(tmp_path / "other"), f"out={tmp_path / 'c.html'}"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"other is better than one: accuracy [\d.]+ % to [\d.]+ % \(\+20.0 points, 95 % interval", said)
    assert "of 8 operations 8 better, 0 worse" in said
    assert "Folds and seeds" in (tmp_path / "c.html").read_text()


def test_a_run_is_finished_where_it_has_results_of_these_recordings(tmp_path):
    write_folds(tmp_path)
    run = tmp_path / "fold1-seed0"
    assert is_finished(run, "abc")
    with pytest.raises(SurgdinoError, match="recordings have changed since this run was finished"):
        is_finished(run, "other")
    (run / RESULTS).write_text("{")
    assert not is_finished(run, "abc")
    assert not is_finished(tmp_path / "fold3", "abc")
