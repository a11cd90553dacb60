"""Triplets: CSV of scores against CholecT50's JSON or CholecT45's text."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from surgdino.datasets.card import Card, load_card
from surgdino.datasets.triplet_files import read_flags, read_triplet_json
from surgdino.datasets.triplets import triplet_table
from surgdino.errors import SurgdinoError
from surgdino.metrics.triplet import triplet_map
from surgdino.tasks.scoring.folders import Folders, paired_files
from surgdino.tasks.scoring.matching import match_frames
from surgdino.tasks.scoring.panels import TaskScores, score_task
from surgdino.tasks.scoring.video_files import video_files
from surgdino.tasks.triplet.files import read_triplets

_TRUTH = ("labels", "triplet")
_NULL_VERB = "null_verb"


def score(folders: Folders) -> TaskScores:
    """See `score_folders`; without a dataset the triplets are CholecT50's, which CholecT45 shares."""
    card = folders.card if folders.card and folders.card.triplets else load_card("cholect50")
    truth_folder = folders.inside(_TRUTH)
    suffix = ".json" if truth_folder.is_dir() and any(truth_folder.glob("*.json")) else ".txt"
    pairs = paired_files(video_files(truth_folder, suffix), video_files(folders.predictions, ".csv"), folders)
    truths: dict[str, np.ndarray] = {}
    scores: dict[str, np.ndarray] = {}
    heads: dict[str, dict[str, np.ndarray]] = {}
    for video, truth_file, file in pairs:
        frames, truth = _truth(truth_file, card)
        kept = folders.sampled(frames, truth_file)
        truths[video] = truth[kept]
        found = read_triplets(file, len(card.triplets))
        rows = match_frames(frames[kept], found.frames, file, ignore_extra=folders.ignore_extra)
        scores[video] = found.scores[rows]
        for component, values in found.heads.items():
            heads.setdefault(component, {})[video] = values[rows]
    _refuse_half_given(heads, pairs)
    return score_task(
        "triplet",
        truths,
        scores,
        classes=card.triplets,
        operations={video: folders.operation_of(video) for video in truths},
        protocol=folders.protocol,
        mapping=triplet_map(triplet_table(card), null_verb=card.verbs.index(_NULL_VERB)),
        heads=heads or None,
        resamples=folders.resamples,
        seed=folders.seed,
    )


def _truth(path: Path, card: Card) -> tuple[np.ndarray, np.ndarray]:
    """Frames int64 [n] and 0/1 [n, triplets] of one label file."""
    if path.suffix.lower() == ".json":
        labels, problems = read_triplet_json(path, card)
        table = None
    else:
        table, problems = read_flags(path, card.triplets)
    for problem in problems:
        if problem.severity == "error":
            raise problem.error()
    if table is not None:
        return table[:, 0], table[:, 1:]
    return labels["triplet"].numbers, labels["triplet"].array


def _refuse_half_given(heads: dict[str, dict[str, np.ndarray]], pairs: list[tuple[str, Path, Path]]) -> None:
    for component, values in heads.items():
        for video, _, file in pairs:
            if video not in values:
                raise SurgdinoError(
                    f"the file lacks the head {component} that others have",
                    file=file,
                    expected=f"columns {component}0, {component}1, ...",
                    fix="give all files the same columns",
                )
