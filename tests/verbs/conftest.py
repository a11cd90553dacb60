"""A set and a finished run of every task, made when first asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from surgdino.cli.main import main
from tests.tasks.sets import set_of, words_of


@pytest.fixture(scope="package")
def sets(tmp_path_factory) -> dict[str, Path]:
    """Task -> its set, written when it is first asked for."""
    folder = tmp_path_factory.mktemp("sets")

    class Written(dict):
        def __missing__(self, task: str) -> Path:
            root = folder / task / "set"
            set_of(task).write(root)
            self[task] = root
            return root

    return Written()


@pytest.fixture(scope="package")
def runs(sets, tmp_path_factory) -> dict[str, Path]:
    """Task -> a finished run, trained when it is first asked for."""
    folder = tmp_path_factory.mktemp("runs")

    class Finished(dict):
        def __missing__(self, task: str) -> Path:
            assert main(words_of(task, sets[task], folder / task)) == 0
            self[task] = folder / task
            return self[task]

    return Finished()
