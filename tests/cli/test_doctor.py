"""`surgdino doctor` says what is missing, in one line each, and whether that stops anything."""

from __future__ import annotations

import json
from collections import namedtuple

import pytest

from surgdino import machine
from surgdino.backbone import timm_import
from surgdino.cli import doctor
from surgdino.cli.main import main


def told(capsys, *words: str) -> tuple[int, dict[str, dict]]:
    """The exit code, and the last finding of each kind."""
    code = main(["doctor", "--json", *words])
    return code, {finding["what"]: finding for finding in json.loads(capsys.readouterr().out)}


@pytest.fixture(autouse=True)
def small_disk_test(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "_TRIED_BYTES", 1 << 20)
    monkeypatch.chdir(tmp_path)


def test_every_look_finds_something_and_nothing_is_left_on_the_disk(capsys, tmp_path):
    code, found = told(capsys)
    assert {"Python", "packages", "torch", "GPU", "decoders", "processors", "/dev/shm", "disk"} <= found.keys()
    assert code == any(finding["state"] == "fault" for finding in found.values())
    assert found["packages"]["state"] == "ok", found["packages"]
    assert not list(tmp_path.iterdir())


def test_lines_for_people_end_with_a_verdict(capsys):
    main(["doctor"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("✓ Python")
    assert lines[-1] in ("✓ surgdino can work here", "✗ 1 to be changed")


@pytest.mark.parametrize("have", [None, "0.1"], ids=["missing", "too old"])
def test_a_package_that_is_missing_or_too_old_is_a_fault_with_the_line_to_install(capsys, monkeypatch, have):
    version = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: have if name == "monai" else version(name))
    code, found = told(capsys)
    assert code == 1
    assert found["packages"]["state"] == "fault"
    assert "monai" in found["packages"]["found"]
    assert found["packages"]["fix"].startswith("pip install 'monai")


@pytest.mark.parametrize(("loads", "state"), [(True, "ok"), (False, "note")])
def test_torchvision_of_another_build_is_said_with_what_to_install(capsys, monkeypatch, loads, state):
    monkeypatch.setattr(timm_import, "compiled_operators_load", lambda: loads)
    _, found = told(capsys)
    assert found["torch"]["state"] == state
    assert ("pip install torch==" in found["torch"]["fix"]) == (not loads)


def test_too_little_of_anything_is_a_note(capsys, monkeypatch):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(machine, "free_shared_memory", lambda: 64 << 20)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: usage(1 << 30))
    monkeypatch.setattr(machine, "cores", lambda: 1)
    _, found = told(capsys)
    assert [found[what]["state"] for what in ("/dev/shm", "disk", "processors")] == ["note"] * 3
    assert "--shm-size" in found["/dev/shm"]["fix"]


def test_a_look_that_fails_costs_none_of_the_others(capsys, monkeypatch):
    def broken():
        raise ImportError("libcudart.so.12: cannot open\nshared object file")

    monkeypatch.setattr(doctor, "LOOKS", {"broken": broken, **doctor.LOOKS})
    code, found = told(capsys)
    assert code == 1
    assert found["broken"]["found"] == "ImportError: libcudart.so.12: cannot open shared object file"
    assert "disk" in found


def test_a_dataset_is_counted_or_said_to_be_missing(capsys, tmp_path):
    code, found = told(capsys, "dataset=cholec80", f"data.root={tmp_path / 'nowhere'}")
    assert code == 1
    assert "nowhere" in found["data"]["found"]


@pytest.mark.parametrize("word", ["--jsn", "cholec80"])
def test_what_is_no_setting_is_refused(capsys, word):
    assert main(["doctor", word]) == 2
    assert "surgdino doctor" in capsys.readouterr().err
