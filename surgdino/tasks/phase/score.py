"""Phases: M2CAI text files on both sides; the truth may also be CholecT50's JSON, whose rows name a phase."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from surgdino.datasets.triplet_files import read_triplet_json
from surgdino.errors import SurgdinoError
from surgdino.tasks.phase.files import ENDINGS, phase_cells, read_phase
from surgdino.tasks.scoring.folders import Folders, paired_files
from surgdino.tasks.scoring.matching import match_frames
from surgdino.tasks.scoring.panels import TaskScores, score_task
from surgdino.tasks.scoring.video_files import video_files

_TRUTH = ("phase_annotations", "labels")
# Other files that the releases keep beside the phases.
_OTHERS = ("-tool", "-timestamp", "_timestamp")


def score(folders: Folders) -> TaskScores:
    """See `score_folders`; the classes are those given, the card's, or the names in the truth in alphabetical order."""
    truth_folder = folders.inside(_TRUTH)
    as_json = truth_folder.is_dir() and any(truth_folder.glob("*.json"))
    if as_json:
        truths = video_files(truth_folder, ".json")
    else:
        truths = video_files(truth_folder, ".txt", endings=ENDINGS[:2], ignored=(*_OTHERS, "_pred"))
    predictions = video_files(folders.predictions, ".txt", endings=ENDINGS, ignored=_OTHERS)
    pairs = paired_files(truths, predictions, folders)
    classes = folders.classes or (folders.card.phases if folders.card else ()) or _names(truths)
    true: dict[str, np.ndarray] = {}
    predicted: dict[str, np.ndarray] = {}
    frames: dict[str, np.ndarray] = {}
    for video, truth_file, file in pairs:
        numbers, ids = _json_phases(truth_file, folders) if as_json else read_phase(truth_file, classes)
        kept = folders.sampled(numbers, truth_file)
        frames[video], true[video] = numbers[kept], ids[kept]
        found, guesses = read_phase(file, classes)
        rows = match_frames(frames[video], found, file, ignore_extra=folders.ignore_extra)
        predicted[video] = guesses[rows]
    return score_task(
        "phase",
        true,
        predicted,
        classes=classes,
        operations={video: folders.operation_of(video) for video in true},
        protocol=folders.protocol,
        fps=_label_rate(folders, frames),
        frames=frames,
        tolerance_seconds=folders.tolerance_seconds,
        resamples=folders.resamples,
        seed=folders.seed,
    )


def _names(truths: dict[str, Path]) -> tuple[str, ...]:
    """The phases that the truth names; of ids, all up to the highest."""
    cells = {cell for path in truths.values() for cell in phase_cells(path)[1]}
    if all(cell.isdecimal() for cell in cells):
        return tuple(str(number) for number in range(max(map(int, cells)) + 1))
    return tuple(sorted(cells))


def _label_rate(folders: Folders, frames: dict[str, np.ndarray]) -> float | None:
    """Labels per second: what the frame numbers count in, over the distance of the rows."""
    fps = folders.fps or (folders.card.fps if folders.card else None)
    steps = {int(np.median(np.diff(numbers))) for numbers in frames.values() if len(numbers) > 1}
    return fps / steps.pop() if fps and len(steps) == 1 else None


def _json_phases(path: Path, folders: Folders) -> tuple[np.ndarray, np.ndarray]:
    if folders.card is None:
        raise SurgdinoError("JSON labels need their dataset's card", file=path, fix="give dataset=cholect50")
    labels, problems = read_triplet_json(path, folders.card)
    for problem in problems:
        if problem.severity == "error":
            raise problem.error()
    if "phase" not in labels:
        raise SurgdinoError("no frame has a phase", file=path, expected="a phase in the rows", found="none")
    return labels["phase"].numbers, labels["phase"].array.astype(np.int64)
