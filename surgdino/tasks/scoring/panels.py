"""All that papers report of a task, in one call: one file a task, found by its name.

A panel turns truths and predictions into `TaskScores`: every number with its protocol, its spread and its interval
over operations. `finetune`, `evaluate` and `score` all print what comes from here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from surgdino.errors import SurgdinoError, nearest
from surgdino.metrics.scores import ClassTable, Score, ScoreRequest, TaskScores
from surgdino.metrics.triplet import TripletMap
from surgdino.tasks.segmentation.panel import SegmentationTally

__all__ = ["ClassTable", "Score", "SegmentationTally", "TaskScores", "protocols_of", "score_task", "task_names"]


def task_names() -> list[str]:
    """The tasks that can be scored: one file each in this folder."""
    return sorted(p.parent.name for p in Path(__file__).parent.parent.glob("*/panel.py"))


def protocols_of(task: str) -> tuple[str, ...]:
    """The names of a task's protocols.

    Raises:
        SurgdinoError: no such task; the nearest is named.
    """
    return _panel(task).PROTOCOLS


def score_task(
    task: str,
    truths: Mapping[str, Any],
    predictions: Mapping[str, Any],
    *,
    classes: Sequence[str],
    operations: Mapping[str, str],
    protocol: str | None = None,
    fps: float | None = None,
    mapping: TripletMap | None = None,
    heads: Mapping[str, Mapping[str, np.ndarray]] | None = None,
    frames: Mapping[str, np.ndarray] | None = None,
    unlabelled: Any = None,
    tolerance_seconds: float = 10.0,
    resamples: int = 1000,
    seed: int = 0,
) -> TaskScores:
    """Score one task's predictions.

    Args:
        task: one of `task_names()`.
        truths: video id -> int [n] phase ids; 0/1 [n, triplets]; or frame number -> bool [C, H, W] masks.
        predictions: the same videos and frames: int [n] phase ids; float [n, triplets] of any monotone scale; or frame
            number -> bool [C, H, W]. Masks too many to hold go through `SegmentationTally`.
        classes: names in the order of the ids.
        operations: video id -> operation id; intervals and spreads are over these.
        protocol: one by name (`phase/script` or `script`), `all`, or None for the task's default ones.
        fps: phase labels per second; the relaxed protocols need it.
        mapping: which components each triplet holds; triplets need it.
        heads: component (I, V, T, ...) -> video id -> float [n, classes of the component]: a triplet model's own
            component heads, scored beside the maximum over triplets.
        frames: video id -> int [n] frame numbers of phase labels; where they leave gaps, no relaxed protocol is
            computed.
        unlabelled: what the truth says nothing of. Phases and triplets: the value that marks such frames in the
            truths (-1), which are left out on both sides. Masks: video id -> frame -> bool [C], True for the classes
            that are not labelled in that picture.
        tolerance_seconds: of the relaxed protocols.
        resamples, seed: of the bootstrap.

    Raises:
        SurgdinoError: unknown task or protocol, a protocol asked for by name that lacks what it needs, videos, shapes
            or values that do not fit.
    """
    notes: list[str] = []
    if unlabelled is not None and task != "segmentation":
        truths, predictions, heads, frames = _labelled(unlabelled, truths, predictions, heads, frames, notes)
    request = ScoreRequest(
        truths, predictions, tuple(classes), operations, protocol, fps, mapping, heads, frames, unlabelled
    )
    request = replace(request, tolerance_seconds=tolerance_seconds, resamples=resamples, seed=seed, notes=notes)
    return _panel(task).panel(request)


def _panel(task: str) -> Any:
    if task not in task_names():
        raise SurgdinoError(f"unknown task {task!r}", fix=nearest(task, task_names()))
    return import_module(f"surgdino.tasks.{task}.panel")


def _labelled(mark: Any, truths: Any, predictions: Any, heads: Any, frames: Any, notes: list[str]) -> tuple:
    """All four without the frames that the truth marks as unlabelled, and without videos that have no others."""
    known = {video: (np.asarray(truth) != mark).reshape(len(truth), -1).all(1) for video, truth in truths.items()}
    empty = [video for video, kept in known.items() if not kept.any()]
    if empty:
        notes.append(f"{len(empty)} videos without a labelled frame were left out, the first is {empty[0]}")

    def kept_of(values: Mapping[str, Any], side: str) -> dict[str, np.ndarray]:
        for video, kept in known.items():
            if video in values and len(values[video]) != len(kept):
                told = {"place": video, "expected": len(kept), "found": len(values[video])}
                raise SurgdinoError(f"ground truth and {side} differ in length", **told)
        return {v: np.asarray(a)[known[v]] if v in known else a for v, a in values.items() if v not in empty}

    return (
        kept_of(truths, "ground truth"),
        kept_of(predictions, "prediction"),
        {component: kept_of(values, f"head {component}") for component, values in heads.items()} if heads else heads,
        kept_of(frames, "list of frames") if frames else frames,
    )
