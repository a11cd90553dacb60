"""From recordings with telling names to a prediction: nothing that is meant to be shared says them, nothing asks the
network, nothing is written where it does not belong, and all of it goes on working by name."""

from __future__ import annotations

import json
import os
import re
import socket
import sys
import tempfile
from pathlib import Path

import pytest

import surgdino
from surgdino.cli.main import main
from surgdino.datasets.synthetic.cholec80 import write_cholec80
from tests.tasks.sets import SMALL

NAMES = ("Mueller_Anna", "Schmidt 1962-03-04", "OP7 Yilmaz", "Novak")
_written: list[str] | None = None


def _watch(event: str, arguments: tuple) -> None:
    if event == "open" and _written is not None and isinstance(arguments[0], str | bytes):
        mode, flags = arguments[1], arguments[2] or 0
        if (mode and set(mode) & set("wax+")) or flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            _written.append(os.fsdecode(arguments[0]))


@pytest.fixture
def house(tmp_path, monkeypatch) -> Path:
    """A folder `clinic` of four recordings with phases; the network refuses, and writes are watched."""
    global _written
    sys.addaudithook(_watch)
    write_cholec80(tmp_path / "made", videos=4, seconds=12, size=(160, 96), seed=0)
    clinic = tmp_path / "clinic"
    clinic.mkdir()
    rows = ["video,second,label"]
    for number, name in enumerate(NAMES, start=1):
        (tmp_path / f"made/videos/video{number:02d}.mp4").rename(clinic / f"{name}.mp4")
        rows += [f"{name},{second},{'access' if second < 6 else 'closure'}" for second in range(12)]
    (clinic / "labels.csv").write_text("\n".join(rows) + "\n")

    def refuse(*arguments, **more):
        raise AssertionError(f"the network was asked: {arguments}")

    connect = socket.socket.connect
    own = monkeypatch.setattr  # workers of this process are talked to through files, which are no network
    own(socket.socket, "connect", lambda s, to: connect(s, to) if s.family == socket.AF_UNIX else refuse(to))
    for holder, name in ((socket.socket, "connect_ex"), (socket.socket, "sendto"), (socket, "getaddrinfo")):
        monkeypatch.setattr(holder, name, refuse)
    monkeypatch.setattr(socket, "gethostname", lambda: "or-7-workstation")
    _written = []
    yield tmp_path
    _written = None


def texts_of(run: Path) -> dict[str, str]:
    """File -> all of its bytes as text, and its name; without state/, which stays."""
    files = [file for file in run.rglob("*") if file.is_file() and file.relative_to(run).parts[0] != "state"]
    return {str(file): f"{file.relative_to(run)} {file.read_bytes().decode('latin1')}" for file in files}


def refuse_names(run: Path, house: Path) -> None:
    words = [*NAMES, *(json.dumps(name) for name in NAMES), str(house), "or-7-workstation", "Mueller", "clinic"]
    for file, text in texts_of(run).items():
        assert not (found := [word for word in words if word in text]), f"{file} holds {found}"


@pytest.mark.slow
def test_nothing_that_is_shared_says_a_name_and_all_works_by_name(house, capsys):
    data = ["dataset=folder", f"data.root={house / 'clinic'}", f"data.store={house / 'store'}", "data.fps=2"]
    small = [word for word in SMALL if not word.startswith("image_size")]
    sizes = ["crops.global_size=32", "crops.local_size=16", "crops.local_count=1"]
    head = ["method.head_hidden=32", "method.head_out=16", "train.batch_size=4", "train.warmup_steps=0"]
    pre = ["pretrain", *data, *small, *sizes, *head, "train.steps=2", f"data.exclude=[{NAMES[3]}]"]
    pre += [f"probe.hold_out=[{NAMES[2]}]", "probe.every=1", "train.head_warmup_steps=0", f"run.dir={house / 'pre'}"]
    assert main(pre) == 0
    assert "names.json" in capsys.readouterr().out
    refuse_names(house / "pre", house)
    assert main(pre) == 0  # continued by name
    assert "finished" in capsys.readouterr().out
    split = f"data.split={{train: ['{NAMES[0]}', '{NAMES[1]}'], test: ['{NAMES[3]}']}}"
    tune = ["finetune", "task=phase", "task.temporal=none", *data, *SMALL, split, "train.steps=4", "train.batch_size=4"]
    tune += [f"checkpoint={house / 'pre'}", f"run.dir={house / 'ft'}"]
    assert main(tune) == 0
    refuse_names(house / "ft", house)
    assert list((house / "ft/predictions").glob("op-*.txt"))
    assert main([word.replace(NAMES[3], NAMES[2]) for word in tune]) == 2  # chose among the states of pretraining
    assert "has seen operations" in capsys.readouterr().err
    assert main(["evaluate", f"checkpoint={house / 'ft'}", "hardware.loader_workers=0"]) == 0
    assert "reproduced: all values equal" in capsys.readouterr().out
    video = house / "clinic" / f"{NAMES[0]}.mp4"
    assert main(["predict", str(video), f"checkpoint={house / 'ft'}", f"out={house / 'out'}"]) == 0
    for run in ("pre", "ft"):
        assert main(["report", str(house / run), "report.frames=true"]) == 0 if run == "pre" else True
        assert main(["share", str(house / run), f"out={house / 'shared' / run}"]) == 0
        refuse_names(house / run, house)
        refuse_names(house / "shared" / run, house)
    shared, own = (surgdino.load(house / run).info["operations"] for run in ("shared/pre", "pre"))
    assert shared == own
    assert all(re.fullmatch(r"op-[0-9a-f]{6}", each) for each in surgdino.load(house / "pre").info["operations"])
    home = (str(house), str(Path.home() / ".cache"), "/dev/", "/proc/")
    written = set(_written or ()) - {tempfile.gettempdir()}  # a file without a name, for a decoder's words
    strays = [path for path in written if not os.path.abspath(path).startswith(home) and ".pyc" not in path]
    assert not strays
