"""The few questions that code asks about the process group; every answer holds for a single process too."""

from __future__ import annotations

import os


def rank() -> int:
    """This process's number among all; 0 where there is only one."""
    return int(os.environ.get("RANK", 0))


def world_size() -> int:
    """How many processes train together; 1 unless a launcher such as torchrun says otherwise."""
    return int(os.environ.get("WORLD_SIZE", 1))


def is_main() -> bool:
    """True in the one process that prints and writes."""
    return rank() == 0
