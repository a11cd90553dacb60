"""`surgdino score`: anyone's predictions under every protocol, from two folders of files; no model involved."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from surgdino import __version__
from surgdino.config import typed
from surgdino.console import field
from surgdino.errors import SurgdinoError
from surgdino.exit_code import ExitCode
from surgdino.runs.lock import FolderLock
from surgdino.runs.results import print_scores, write_results
from surgdino.tasks import task_names
from surgdino.tasks.scoring.folders import Folders
from surgdino.tasks.scoring.scoring import open_scoring


def main(cfg: Mapping[str, Any]) -> ExitCode:
    """Score the files that `cfg` names, print the tables, and write them where `out` says; 0."""
    folders = typed(Folders, cfg, "")
    if folders.task is None:
        raise SurgdinoError("task is not set", fix=f"add task={'|'.join(task_names())} to the command")
    name = folders.task["name"]
    folders = replace(folders, truth=folders.truth.expanduser(), predictions=folders.predictions.expanduser())
    scores = open_scoring(name).score_folders(folders)
    print_scores(scores, details=folders.details)
    if folders.out is not None:
        keys = ("protocol", "truth", "predictions", "every", "missing", "extra", "fps", "tolerance_seconds")
        facts = {
            **{key: getattr(folders, key) for key in keys},
            "dataset": folders.card.name if folders.card else None,
            "versions": {"surgdino": __version__, "numpy": np.__version__, "python": platform.python_version()},
            "command": " ".join(sys.argv),
        }
        with FolderLock(folders.out):
            path = write_results(folders.out, name, scores, facts=facts)
            field("results", path)
        return ExitCode(0, folders.out, scores, results=path)
    return ExitCode(0, None, scores)
