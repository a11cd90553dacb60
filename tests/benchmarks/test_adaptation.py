"""The adaptation benchmark runs end to end, and its probes never look at the operation they are scored on."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from tests import ROOT

BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture
def benchmarks(monkeypatch):
    """Its modules, found as they are when it is run as a script."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import adaptation
    import linear_probes

    yield adaptation, linear_probes
    for name in ("adaptation", "linear_probes"):
        sys.modules.pop(name, None)


@pytest.mark.slow
def test_a_run_is_measured_before_and_after_and_not_twice(benchmarks, tmp_path, capsys):
    adaptation, _ = benchmarks
    words = ["--smoke", "--out", str(tmp_path), "--operations", "VID02", "--seeds", "1", "--at", "2"]
    adaptation.main([*words, "train.lr=2e-3"])
    rows = [json.loads(line) for line in (tmp_path / "probes.jsonl").read_text().splitlines()]
    measured = [(row["step"], row["weights"]) for row in rows if "weights" in row]
    assert measured == [(0, "initial"), (2, "student"), (2, "teacher"), (4, "student"), (4, "teacher")]
    assert all(0 <= row[name] <= 1 for row in rows if "weights" in row for name in ("instrument_ap", "phase_accuracy"))
    assert rows[3]["instrument_ap"] != rows[0]["instrument_ap"], "the student learned nothing"
    assert "train.lr=2e-3" in rows[-1]["settings"]
    seen = json.loads((tmp_path / "recipe-VID02-1" / "student-4" / "model.json").read_text())["operations"]
    assert seen == ["demo/1", "demo/4"], "VID02 is also video02 of the other set"

    first = capsys.readouterr().out.splitlines()
    adaptation.main([*words, "train.lr=2e-3"])
    again = capsys.readouterr().out.splitlines()
    table = [line for line in first if line.startswith("| student | instrument_ap | VID02")]
    assert len(table) == 1
    assert table == [line for line in again if line.startswith("| student | instrument_ap | VID02")]
    assert len((tmp_path / "probes.jsonl").read_text().splitlines()) == len(rows)


def test_a_probe_knows_only_the_operations_it_is_fitted_on(benchmarks):
    _, probes = benchmarks
    rng = np.random.default_rng(0)
    operation = np.repeat(["a", "b", "c"], 40)
    phase = np.tile([0, 1], 60)
    tokens = rng.normal(size=(120, 8))
    tokens[:, 0] += 4 * phase
    value = probes.left_out(probes.phase_accuracy, tokens, phase, operation, "c")
    assert value > 0.9
    wrong = np.where(operation == "c", 1 - phase, phase)
    against = probes.left_out(probes.phase_accuracy, tokens, wrong, operation, "c")
    assert against == pytest.approx(1 - value), "the labels of the scored operation moved the probe"


def test_an_instrument_never_fitted_counts_as_chance_and_one_never_shown_not_at_all(benchmarks):
    _, probes = benchmarks
    rng = np.random.default_rng(1)
    y, y_held = rng.integers(0, 2, (40, 3)), np.zeros((10, 3), int)
    x, x_held = rng.normal(size=(40, 4)), rng.normal(size=(10, 4))
    y[:, 1] = 0
    y_held[:3, 1] = 1
    assert probes.instrument_ap(x, y, x_held, y_held, 1.0) == pytest.approx(0.3)
