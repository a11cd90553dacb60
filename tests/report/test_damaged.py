"""A damaged file of a run costs its part of the report and a line that names it; nothing in a run is taken as HTML."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from pathlib import Path

import pytest

from surgdino.engine.log import rows_of
from surgdino.errors import SurgdinoError
from surgdino.report.record import read_metrics, read_run
from surgdino.verbs.report import report_run
from tests import ROOT

JSON = ("environment.json", "data.json", "results.json", "checkpoint/model.json")
ODD = {
    "a list": b"[]",
    "a number": b"5",
    "cut": b'{"a": ',
    "latin-1": '{"a": "Ü"}'.encode("latin-1"),
    "binary": bytes(range(256)),
    "not a number": b'{"value": NaN}',
    "deep": b"[" * 100_000,
    "digits": b'{"a": ' + b"9" * 5000 + b"}",
}
TYPES = {
    "environment.json": {"packages": 5, "command": [1]},
    "data.json": {"videos": [{"id": 5}], "left_out": "x", "set_aside": []},
    "results.json": {"task": 5, "headline": "x", "scores": 3, "classes": {}, "leakage": 5},
    "checkpoint/model.json": {"method": "x", "created": 5, "operations": 7},
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    with tarfile.open(ROOT / "tests/runs/fixture_2026_11/runs.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "runs" / "phase"


@pytest.fixture
def run(sound, tmp_path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "run", ignore=shutil.ignore_patterns("*.safetensors", "*.pt")))


def test_a_sound_run_leaves_nothing_out(run):
    assert read_run(run).left_out == []


@pytest.mark.parametrize("name", JSON)
def test_a_json_file_of_any_other_kind_is_named_and_left_out(run, name):
    for content in (*ODD.values(), json.dumps(TYPES[name]).encode()):
        (run / name).write_bytes(content)
        record = read_run(run)
        assert len(record.left_out) == 1
        assert name in record.left_out[0]
        assert "\n" not in record.left_out[0]


def test_lines_that_are_no_rows_are_counted_and_values_of_another_kind_are_dropped(run):
    odd = ['{"step": "x", "loss": "y"}', "[1]", "5", '{"loss": 1}', '{"step": ' + "9" * 5000 + "}", "[" * 50_000]
    rows = read_metrics(run / "metrics.jsonl")
    with (run / "metrics.jsonl").open("a") as stream:
        stream.write("\n".join([*odd, '{"step": 9, "loss": "y", "warning": 5, "lr": 1e999, "acc": 0.5}', '{"st']))
    found, said = rows_of(run / "metrics.jsonl")
    assert found == [*rows, {"step": 9, "acc": 0.5}]
    assert "6 of " in said


@pytest.mark.parametrize("name", ["metrics.jsonl", *JSON])
def test_what_cannot_be_opened_is_left_out(run, name):
    (run / name).unlink()
    os.mkfifo(run / name)
    assert "named pipe" in read_run(run).left_out[0]
    (run / name).unlink()
    (run / name).mkdir()
    assert "a folder" in read_run(run).left_out[0]


def test_settings_of_another_kind_are_left_out_and_what_is_no_yaml_is_refused(run):
    (run / "config.yaml").write_text("dataset: 5\ntrain: x\ntask: [1]\n")
    assert len(read_run(run).left_out) == 3
    (run / "config.yaml").write_text("train: {batch_size: x}\ntask: 5\n")
    page = report_run(run, run / "report.html").read_text()
    assert f"left out of the report: {run / 'config.yaml'}, task" in page
    assert "This part could not be shown" in page
    for content in (b"[1]", b"a: \xfc", b"a: !!python/object/apply:os.system [ls]"):
        (run / "config.yaml").write_bytes(content)
        with pytest.raises(SurgdinoError, match=r"config\.yaml"):
            read_run(run)


def test_names_are_text_in_the_page_and_never_markup(run):
    evil = "<script>alert(1)</script><img src=x onerror=y>\x1b[31m\u202e $\\frac{$"
    for name, key in (("data.json", "id"), ("data.json", "kind")):
        data = json.loads((run / name).read_text())
        data["videos"][0][key] = data["videos"][0]["operation"] = evil
        (run / name).write_text(json.dumps({**data, "set_aside": {evil: evil}}))
    results = json.loads((run / "results.json").read_text())
    results["notes"], results["leakage"] = [evil], {"stamp": evil}
    for row in results["scores"]:
        row["name"] = evil
    (run / "results.json").write_text(json.dumps(results))
    model = json.loads((run / "checkpoint/model.json").read_text())
    (run / "checkpoint/model.json").write_text(json.dumps({**model, "name": evil, "operations": [evil]}))
    rows = (
        (run / "metrics.jsonl")
        .read_text()
        .replace('"loss"', f'{json.dumps(evil[:45])}: 1, {json.dumps(evil)}: 1, "loss"')
    )
    (run / "metrics.jsonl").write_text(rows + json.dumps({"step": 99, "warning": f"{evil}\ud800"}) + "\n")
    (run / "config.yaml").write_text(f"dataset: {{name: {json.dumps(evil[:45])}}}\n")
    page = report_run(run, run / "report.html").read_text()
    assert "&lt;script&gt;" in page
    for part in ("<script", "<img src=x", "\x1b", "\u202e"):
        assert part not in page
