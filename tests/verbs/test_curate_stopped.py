"""A curation that is killed, or whose disk is full, goes on where it was and decides the same, to the byte."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from surgdino.cli.main import main

TOY = ["model=vit_toy", "hardware=cpu", "hardware.loader_workers=0"]
STORE = ["data.workers=1", "data.short_side=64", "data.fps=2"]


def command(root: Path, folder: Path) -> list[str]:
    return [
        "curate",
        "dataset=cholec80",
        f"data.root={root}",
        f"data.store={folder / 'store'}",
        *TOY,
        *STORE,
        "keep=20",
    ]


def at_call(number: int, call: Callable, strike: Callable[[], None]) -> Callable:
    """The same function, but for the `number`-th call, which does something else first."""
    count = iter(range(1, 1_000_000))

    def wrapped(*given, **named):
        if next(count) == number:
            strike()
        return call(*given, **named)

    return wrapped


def full() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.slow
def test_what_stands_is_not_made_again_after_a_kill_or_a_full_disk(synthetic_cholec80, tmp_path, monkeypatch, capsys):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert main([*command(synthetic_cholec80, whole), f"run.dir={whole / 'cur'}"]) == 0
    words = [*command(synthetic_cholec80, stopped), f"run.dir={stopped / 'cur'}"]
    real, kinds = os.fsync, []
    for _ in range(30):  # struck at the same place every time: it can only end if each run finds what the last one made
        child = os.fork()
        if child == 0:
            os.fsync = at_call(13, real, lambda: os.kill(os.getpid(), signal.SIGKILL))
            os._exit(main(words))
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
            break
        kinds.append("killed")
        capsys.readouterr()
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", at_call(13, real, full))
            if main(words) == 0:
                break
        told = capsys.readouterr().err.strip()
        assert "the disk is full; what was finished before is kept" in told
        assert len(told.splitlines()) == 1
        kinds.append("full")
    else:
        pytest.fail("it never ends")
    assert kinds
    assert (stopped / "cur" / "curation.parquet").read_bytes() == (whole / "cur" / "curation.parquet").read_bytes()
    assert not list(stopped.rglob(".*.tmp"))
