"""What may not be read is named; what may be read is."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from surgdino.datasets.files import walk
from surgdino.datasets.synthetic.cholec80 import write_cholec80


@pytest.fixture
def closed(tmp_path, monkeypatch) -> Path:
    """A folder with an open and a closed one in it; root may read everything, so the system's answer is imitated."""
    for name in ("open", "closed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "op1.mp4").touch()
    scan = os.scandir

    def refuse(path):
        if Path(path).name == "closed":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    return tmp_path / "closed"


def test_a_folder_that_may_not_be_read_is_told_and_the_others_are_read(closed):
    refused: list[OSError] = []
    found = [path for _, files in walk(closed.parent, refused.append) for path in files]
    assert found == [closed.parent / "open" / "op1.mp4"]
    assert [error.filename for error in refused] == [str(closed)]
    assert list(walk(closed.parent)), "nobody has to be told"


def test_verify_names_a_folder_that_may_not_be_read(closed, capsys):
    from surgdino.cli.main import main

    write_cholec80(closed.parent / "whole", videos=1, seconds=2, fps=5, size=(64, 48), seed=0)
    os.replace(closed.parent / "whole/videos/video01.mp4", closed.parent / "open" / "op1.mp4")
    main(["verify", "dataset=folder", f"data.root={closed.parent}"])
    said = " ".join(capsys.readouterr().out.split())
    assert "not looked into: no permission" in said
    assert "closed" in said
