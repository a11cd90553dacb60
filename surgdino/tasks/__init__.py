"""Tasks: one folder a task, which holds all of it: what a head learns, from which labels, and how it is judged.

What the tasks share lies in `training/`, `features/` and `scoring/`.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType

from surgdino.errors import SurgdinoError, nearest


def task_names() -> list[str]:
    """What `task=` takes: one folder each in this one."""
    return sorted(p.parent.name for p in Path(__file__).parent.glob("*/task.py"))


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
    return import_module(f"surgdino.tasks.{name}.task")
