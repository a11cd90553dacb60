"""`surgdino list` shows everything that can be chosen by name, found by looking."""

from __future__ import annotations

import subprocess
import sys

import pytest

from surgdino.cli.main import main
from surgdino.discovery import files
from surgdino.verbs.list import KINDS, describe


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_name_is_listed_with_its_setting(kind, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    setting, folder = KINDS[kind]
    assert main(["list", kind]) == 0
    said = capsys.readouterr().out
    for name in files(folder):
        assert f"{setting}={name} " in said


@pytest.mark.parametrize("path", [p for _, folder in KINDS.values() for p in files(folder).values()], ids=str)
def test_every_choice_says_what_it_is(path):
    assert 10 < len(describe(path)) < 160


def test_all_kinds_at_once_without_torch():
    program = "import sys; from surgdino.cli.main import main; main(['list']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.split()[-1] == "False", done.stderr
    assert all(kind in done.stdout for kind in KINDS)


def test_overlaps_between_datasets_are_listed_when_asked_for(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    assert main(["list", "overlaps"]) == 0
    said = capsys.readouterr().out
    assert "seen of cholect50 (test)" in said
    row = next(line for line in said.split("seen of cholect50 (test)")[1].splitlines() if "40-40 train" in line)
    assert row.split()[-19] == "4", "4 of rdv's 10"
    assert row.split()[-1] == "0", "none of the challenge's"
    assert main(["list"]) == 0
    assert "seen of" not in capsys.readouterr().out


def test_a_title_stands_in_for_a_missing_comment(tmp_path):
    (tmp_path / "a.yaml").write_text("# @package _global_\nname: a\ntitle: 'the letter a'\n")
    (tmp_path / "b.yaml").write_text("name: b\n")
    assert describe(tmp_path / "a.yaml") == "the letter a"
    assert describe(tmp_path / "b.yaml") == ""


def test_a_mistyped_kind_names_the_nearest(capsys):
    assert main(["list", "modles"]) == 2
    assert "'models'" in capsys.readouterr().err
