"""Tasks: one file a task, which says what a head learns, from which labels, and by which numbers it is judged.

What the tasks share lies in the folders beside their files (`common/`, `heads/`, `prediction_files/`), so that a file
here is a task and nothing else.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType

from surgdino.errors import SurgdinoError, nearest
from surgdino.paths import names_in


def task_names() -> list[str]:
    """What `task=` takes: one file each in this folder."""
    return names_in(Path(__file__).parent, ".py")


def open_task(name: str) -> ModuleType:
    """The module of a task.

    It has `LABELS` (which labels of the manifest it learns), `Settings` (the `task` section), `DEFAULTS` (of the
    `train` section), and the functions `classes`, `build_head`, `stages`, `predict` and `evaluate`; docs/tasks.md
    explains them.

    Raises:
        SurgdinoError: no such task; the nearest is named.
    """
    if name not in task_names():
        raise SurgdinoError(f"there is no task={name}", fix=nearest(name, task_names()))
    return import_module(f"surgdino.tasks.{name}")
