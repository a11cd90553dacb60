"""Tasks: one folder a task, which holds all of it: what a head learns, from which labels, and how it is judged.

A task of the user's own is a folder or a single file in an extension (see `surgdino.discovery`). What the tasks share
is in `training/`, `features/` and `scoring/`.
"""

from __future__ import annotations

from surgdino import discovery

PACKAGE, MAIN, SCORE = __name__, "task.py", "score.py"


def task_names() -> list[str]:
    """What `task=` takes."""
    return discovery.names(PACKAGE, MAIN)
