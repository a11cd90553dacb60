"""What `surgdino predict` writes of triplets: a table of all scores, the same by name, and the highest in time."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from surgdino.paths import atomic_write
from surgdino.tasks.triplet import task as triplet
from surgdino.tasks.triplet.files import write_triplets
from surgdino.tasks.triplet.score_strips import ScoreStrips, draw_score_strips

if TYPE_CHECKING:
    from surgdino.tasks.request import Request

PICTURES = False  # frames of a video
_LISTED = 5  # triplets a frame in the list


def write(request: Request) -> dict[str, Path]:
    """Predict the video and write it down; what it is -> where it lies.

    Raises:
        SurgdinoError: the file system refused.
    """
    frames, name = request.frames, request.source.name
    [(_, found)] = triplet.predict(request.context, request.head, frames)  # type: ignore[arg-type]
    scores = found["IVT"]
    heads = {component: values for component, values in found.items() if component != "IVT"}
    strips = ScoreStrips(name, frames.times, request.context.classes, scores, truth_of(request), request.told)
    return {
        "scores": write_triplets(request.folder, name, frames.numbers, scores, heads),
        "list": write_list(request.folder / f"{name}-top.csv", strips, frames.numbers),
        "picture": draw_score_strips(strips, request.folder / f"{name}.png"),
    }


def truth_of(request: Request) -> np.ndarray | None:
    """0/1 int64 [n, triplets], -1 where a frame has no annotation; None where nothing is known of the video."""
    frames, source = request.frames, request.source
    if source.labels is None:
        return None
    present, flags = source.labels.values[source.name].at(frames.numbers, frames.times)  # type: ignore[union-attr]
    return np.where(present[:, None], flags.astype(np.int64), -1)


def write_list(path: Path, strips: ScoreStrips, numbers: np.ndarray) -> Path:
    """A CSV with the highest triplets of every frame: its number, seconds, then name and score of each."""
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(
            ["frame", "seconds", *(f"{what}{k}" for k in range(1, _LISTED + 1) for what in ("triplet", "score"))]
        )
        for i, number in enumerate(numbers.tolist()):
            top = np.argsort(-strips.scores[i], kind="stable")[:_LISTED]
            listed = [cell for k in top for cell in (strips.classes[k], f"{strips.scores[i, k]:.5f}")]
            rows.writerow([number, f"{strips.times[i]:.3f}", *listed])
    return path
