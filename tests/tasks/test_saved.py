"""task.json and the head beside it are checked when they are read: one line that names the file and the field."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from surgdino.config import shipped
from surgdino.engine.settings import HardwareSettings
from surgdino.errors import SurgdinoError
from surgdino.tasks.saved import HEAD, TASK_JSON, load_task
from tests import ROOT


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(ROOT / "tests" / "runs" / "fixture_2026_11" / "runs.tar.xz") as archive:
        members = [each for each in archive if each.name.startswith("runs/phase/checkpoint/")]
        archive.extractall(folder, members, filter="data")
    return folder / "runs" / "phase" / "checkpoint"


def altered(trained: Path, folder: Path, text: str, tensors: dict | None = None) -> Path:
    shutil.copytree(trained, folder)
    save_file(tensors or load_file(trained / HEAD), folder / HEAD, {"surgdino_task": text})
    return folder


def use(folder: Path) -> None:
    saved = load_task(folder)
    saved.load_head(saved.context(shipped(HardwareSettings, "hardware/cpu"), folder / "features"))


def refused(folder: Path, word: str) -> None:
    with pytest.raises(SurgdinoError) as caught:
        use(folder)
    line = caught.value.line()
    assert word in line
    assert str(folder) in line
    assert len(line) < 2100


CHANGES = [
    *[("format", value) for value in ("1", None, 0)],
    *[("task", value) for value in ("../x", "os", 5, None)],
    *[("settings", value) for value in (5, {"width": 10**9}, {"layers": 20}, {"temporal": "os"}, {"foo": 1})],
    *[("classes", value) for value in (5, [], ["a"] * 7, [1] * 7, ["x" * 10**5], [[]])],
    *[("card", value) for value in (5, {"name": 5})],
    *[("config", value) for value in (5, {}, {"data": 5, "train": {}}, {"data": {}, "train": {"lr": "x"}})],
    *[("tuning", value) for value in ("x", None)],
    ("backbone_sha256", 5),
]


@pytest.mark.parametrize(("key", "value"), CHANGES)
def test_a_wrong_field_is_refused_by_file_and_field(key: str, value: object, trained: Path, tmp_path: Path) -> None:
    facts = json.loads((trained / TASK_JSON).read_text())
    facts[key] = {**facts[key], **value} if key == "settings" and isinstance(value, dict) else value
    word = {"settings": "task.", "card": "", "config": "", "classes": "classes"}.get(key, key)
    refused(altered(trained, tmp_path / "c", json.dumps(facts)), word if isinstance(value, dict) else key)


def test_the_misprint_of_older_runs_is_shown_right(trained: Path, tmp_path: Path) -> None:
    text = (trained / TASK_JSON).read_text()
    assert "CalotTriangleDissection" in text
    misprinted = text.replace("CalotTriangleDissection", "CarlotTriangleDissection")
    saved = load_task(altered(trained, tmp_path / "c", misprinted))
    assert (saved.classes[1], saved.card.phases[1]) == ("CalotTriangleDissection",) * 2
    twice = json.loads(text)
    twice["classes"][2] = "CarlotTriangleDissection"
    refused(altered(trained, tmp_path / "d", json.dumps(twice)), "classes cannot be used")


@pytest.mark.parametrize("text", ["[" * 100_000, "", "[]", "5", "{}", "NaN"])
def test_a_text_that_is_no_description_is_refused(text: str, trained: Path, tmp_path: Path) -> None:
    refused(altered(trained, tmp_path / "c", text), HEAD)


def test_what_the_settings_claim_is_held_against_the_tensors(trained: Path, tmp_path: Path) -> None:
    facts = json.loads((trained / TASK_JSON).read_text())
    facts["settings"] |= {"hidden": 16384, "width": 4096, "layers": 16}
    refused(altered(trained, tmp_path / "c", json.dumps(facts)), "not the one that task.json describes")


@pytest.mark.parametrize("kind", ["int8", "nan", "missing"])
def test_a_head_of_odd_tensors_is_refused(kind: str, trained: Path, tmp_path: Path) -> None:
    tensors = load_file(trained / HEAD)
    name = next(iter(tensors))
    if kind == "missing":
        del tensors[name]
    else:
        tensors[name] = tensors[name].to(torch.int8) if kind == "int8" else tensors[name] * float("nan")
    refused(altered(trained, tmp_path / "c", (trained / TASK_JSON).read_text(), tensors), name)


def test_a_head_that_is_a_pipe_is_not_opened(trained: Path, tmp_path: Path) -> None:
    folder = altered(trained, tmp_path / "c", (trained / TASK_JSON).read_text())
    (folder / HEAD).unlink()
    os.mkfifo(folder / HEAD)
    refused(folder, "without a task's head")
