"""Tasks: one folder a task, which holds all of it: what a head learns, from which labels, and how it is judged.

A task of the user's own is a folder or a single file in an extension (see `surgdino.discovery`). What the tasks share
is in `training/`, `features/` and `scoring/`.
"""

from __future__ import annotations

from types import ModuleType
from typing import TypeVar

from surgdino import discovery

MAIN, SCORE = "task.py", "score.py"
T = TypeVar("T")


def task_names() -> list[str]:
    """What `task=` takes."""
    return discovery.names(__name__, MAIN)


def task_module(name: str, file: str = MAIN) -> ModuleType | None:
    """File `file` of a task's folder; the whole task where that is one file; None where the folder has no such file.

    Raises:
        SurgdinoError: no such task; the nearest is named.
    """
    if name in task_names() and name not in discovery.names(__name__, file):
        return None
    return discovery.load(__name__, name, "task", file)


def subclass_in(module: ModuleType, base: type[T]) -> type[T] | None:
    """The subclass of `base` that a module defines."""
    kinds = [kind for kind in vars(module).values() if isinstance(kind, type) and issubclass(kind, base)]
    return next((kind for kind in kinds if kind.__module__ == module.__name__), None)
