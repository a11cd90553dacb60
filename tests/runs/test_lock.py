"""One command at a time writes into a folder; no dead process, no worker and no odd file stands in the way."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from surgdino.errors import SurgdinoError
from surgdino.runs.lock import NAME, FolderLock


@contextmanager
def held_by_another(folder: Path) -> Iterator[int]:
    """Another process that holds the folder; its number."""
    reading, writing = os.pipe()
    if not (child := os.fork()):
        with FolderLock(folder):
            os.write(writing, b"held")
            signal.pause()
        os._exit(0)
    assert os.read(reading, 4) == b"held"
    try:
        yield child
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reading), os.close(writing)


def test_the_second_command_is_told_who_holds_the_folder(tmp_path):
    with held_by_another(tmp_path / "run") as other:
        with pytest.raises(SurgdinoError, match=rf"run: this folder is in use; found process {other} on .* since"):
            FolderLock(tmp_path / "run").__enter__()
        with FolderLock(tmp_path / "another"):
            pass


def test_a_killed_process_holds_nothing(tmp_path):
    with held_by_another(tmp_path):
        pass
    assert (tmp_path / NAME).exists(), "it could not remove it"
    with FolderLock(tmp_path):
        assert str(os.getpid()) in (tmp_path / NAME).read_text()
    assert not list(tmp_path.iterdir())


def test_a_worker_that_outlives_its_process_holds_nothing(tmp_path):
    with FolderLock(tmp_path):
        worker = os.fork()
        if not worker:
            signal.pause()
    with held_by_another(tmp_path):
        os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)


def test_only_the_first_of_several_processes_holds_it(tmp_path, monkeypatch):
    with held_by_another(tmp_path):
        monkeypatch.setenv("RANK", "1")
        with FolderLock(tmp_path):
            pass


def test_a_file_system_without_locks_draws_a_warning(tmp_path, monkeypatch, capsys):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with FolderLock(tmp_path):
        assert "has no locks" in capsys.readouterr().out


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/null", path)])
def test_no_odd_file_is_taken_for_the_lock(tmp_path, make):
    make(tmp_path / NAME)
    with pytest.raises(SurgdinoError, match=r"\.lock"):
        FolderLock(tmp_path).__enter__()
