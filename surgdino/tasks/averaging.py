"""Predictions averaged over views of the frames and over several trained runs, for `evaluate` and `predict`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from surgdino.errors import SurgdinoError
from surgdino.tasks.context import View
from surgdino.tasks.saved import HEAD, SavedTask, load_task
from surgdino.tasks.settings import Averaging, Smoothing
from surgdino.tasks.task import Member

_SCALES = (1.0, 0.75, 1.25)  # of the input's side; the frame as it is comes first
_MOST = 32  # runs


def views_of(averaging: Averaging) -> list[View]:
    """The views that a name stands for, the plain one first."""
    scales = _SCALES if "scales" in averaging else (1.0,)
    return [
        View(scale, mirrored) for mirrored in ((False, True) if "flips" in averaging else (False,)) for scale in scales
    ]


def average(members: Sequence[Member], averaging: Averaging, smoothing: Smoothing = "none") -> str:
    """Have the first member's task average all members over the views of that name, and smooth; what it does, in words.

    The words are empty where nothing is averaged or smoothed: one member, one view.

    Raises:
        SurgdinoError: the task does not smooth in that way.
    """
    views, task = views_of(averaging), members[0].task
    if smoothing not in ("none", *task.SMOOTHINGS):
        expected = ", ".join(("none", *task.SMOOTHINGS))
        raise SurgdinoError(f"task={task.name} does not smooth", place="smoothing", expected=expected, found=smoothing)
    task.smoothing = smoothing
    parts = ([f"{len(members)} runs"] if len(members) > 1 else []) + ([averaging] if len(views) > 1 else [])
    task.members = ()
    if parts:
        seen = [Member(each.task, each.context.seen(view), each.head) for each in members for view in views]
        task.members = seen
    return ", ".join([*parts, *([smoothing] if smoothing != "none" else [])])


def load_runs(places: Sequence[str]) -> list[SavedTask]:
    """The trained tasks of runs, checkpoint folders, or folders that have such runs in them (seeds, folds).

    Raises:
        SurgdinoError: none is there, too many are, one is there twice, or they have another task or other classes than
            the first.
    """
    paths = [path for place in places for path in runs_in(Path(place).expanduser())]
    if not 0 < len(paths) <= _MOST:
        expected = f"a run, or up to {_MOST} to average"
        raise SurgdinoError("these runs cannot be averaged", place="checkpoint", expected=expected, found=len(paths))
    found = [load_task(path) for path in paths]
    folders = [each.folder.resolve() for each in found]
    if twice := [folder for folder in folders if folders.count(folder) > 1]:
        raise SurgdinoError("a run twice", place="checkpoint", file=twice[0], expected="each once")
    first = found[0]
    for other in found[1:]:
        for what, ours, theirs in (
            ("task", first.task.name, other.task.name),
            ("classes", first.classes, other.classes),
        ):
            if ours != theirs:
                raise SurgdinoError(
                    f"another {what} than the first run has", file=other.folder, expected=ours, found=theirs
                )
    return found


def runs_in(folder: Path) -> list[Path]:
    """The folder itself where it is a run or a checkpoint, or one that says itself what is wrong with it."""
    if not folder.is_dir() or any((folder / name / HEAD).is_file() for name in ("", "checkpoint", "last")):
        return [folder]
    return sorted(each for each in folder.iterdir() if (each / "checkpoint" / HEAD).is_file()) or [folder]
