"""What leaves with `surgdino share`, and what makes it refuse."""

from __future__ import annotations

import getpass
import json
import socket
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from surgdino.errors import SurgdinoError
from surgdino.runs.names import LOCAL, TABLE
from surgdino.runs.share import share_run


@pytest.fixture
def run(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(getpass, "getuser", lambda: "anna")
    monkeypatch.setattr(socket, "gethostname", lambda: "or-7")
    folder = tmp_path / "run"
    for name in ("checkpoint", "state", "tensorboard", "predictions"):
        (folder / name).mkdir(parents=True)
    (folder / "config.yaml").write_text("data: {root: <data.root>, store: <data.store>}\ndataset: {name: folder}\n")
    (folder / "data.json").write_text(json.dumps({"videos": [{"id": "op-123456", "operation": "op-123456"}]}))
    (folder / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    save_file({"a": torch.zeros(1)}, folder / "checkpoint/backbone.safetensors", {"surgdino": '{"name": "vit"}'})
    (folder / "checkpoint/model.json").write_text('{"operations": ["op-123456", "camma/1"]}')
    settings = {"data.root": "/srv/klinik-nord/op", "data.store": str(tmp_path / "store")}
    (folder / LOCAL).write_text(json.dumps({"command": [], "settings": settings}))
    (folder / "predictions/op-123456.csv").write_text("frame\n")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / TABLE).write_text(json.dumps({"key": "0" * 64, "names": {"op-123456": "op/Müller Hüfte"}}))
    return folder


def share(run: Path, out: Path) -> dict[str, str]:
    return share_run(run, out, lambda _, target: target.write_text("<html>report</html>"))


def test_weights_numbers_and_report_leave_and_the_rest_is_named(run, tmp_path):
    left_out = share(run, tmp_path / "out")
    there = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    weights = {"checkpoint/backbone.safetensors", "checkpoint/model.json"}
    assert there == weights | {"config.yaml", "data.json", "metrics.jsonl", "report.html"}
    assert left_out.keys() == {"state", "tensorboard", "predictions"}


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("metrics.jsonl", json.dumps({"step": 1, "warning": "Müller Hüfte"})),  # escaped
        ("config.yaml", "note: op/Müller Hüfte\ndata: {store: <data.store>}"),
        ("data.json", json.dumps({"videos": [{"id": "Schmidt", "operation": "d/Schmidt"}]})),  # of a run with names
        ("data.json", json.dumps({"command": "ssh anna@or-7"})),
        ("environment.json", '{"command": "surgdino data.root=/srv/other/place"}'),
        ("results.json", '{"checkpoint": "/srv/klinik-nord/op"}'),
        ("report.html", "<td>M&uuml;ller</td> C:\\\\Users\\\\anna\\\\op"),
        ("checkpoint/task.json", '{"a": "x in /home/anna/y"}'),
        ("evaluation/Müller Hüfte/results.json", "{}"),
    ],
)
def test_a_name_or_path_in_any_of_it_is_refused_and_nothing_is_written(run, tmp_path, file, text):
    (run / file).parent.mkdir(parents=True, exist_ok=True)
    (run / file).write_text(text)
    with pytest.raises(SurgdinoError, match="holds names; nothing was written"):
        share_run(run, tmp_path / "out", lambda _, target: target.write_text((run / file).read_text()))
    assert not (tmp_path / "out").exists()


def test_a_name_in_the_header_of_the_weights_is_found(run, tmp_path):
    header = {"surgdino": json.dumps({"operations": ["op/Müller Hüfte"]}, ensure_ascii=False)}
    save_file({"a": torch.zeros(1)}, run / "checkpoint/backbone.safetensors", header)
    with pytest.raises(SurgdinoError, match=r"backbone\.safetensors: the name of an operation"):
        share(run, tmp_path / "out")


@pytest.mark.parametrize(
    "header", [b"", b"{", b"[]", b"5", b"[" * 100_000, b'{"__metadata__": [1]}', b'{"__metadata__": 5}']
)
def test_weights_with_a_strange_header_are_refused_in_a_line(run, tmp_path, header):
    (run / "checkpoint/backbone.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(SurgdinoError, match=r"^checkpoint/backbone\.safetensors: "):
        share(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_there_is_not_written_over(run, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(SurgdinoError, match="exists already"):
        share(run, tmp_path / "out")


@pytest.mark.parametrize("file", ["data.json", "checkpoint/model.json"])
@pytest.mark.parametrize("content", ["[]", '{"videos": {"a": 1}, "operations": "a"}'])
def test_a_list_of_names_that_is_none_is_refused(run, tmp_path, file, content):
    (run / file).write_text(content)
    with pytest.raises(SurgdinoError, match="not as a run writes it"):
        share(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()
