"""How tools are scored: average precision of each over all frames, as published on Cholec80 since EndoNet (Twinanda et
al. 2017), or video by video as the triplets' instruments; and their mean.

From files: tables of scores against Cholec80's tool files, or the instruments in CholecT50's JSON or CholecT45's text.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from surgdino.datasets.card import Card, load_card
from surgdino.datasets.class_names import corrected
from surgdino.datasets.manifest import Problem
from surgdino.datasets.triplet_files import read_flags, read_triplet_json
from surgdino.metrics.arrays import nanmean, score_matrices
from surgdino.metrics.average_precision import class_ap
from surgdino.metrics.confusion import of_highest
from surgdino.metrics.intervals import operations_of
from surgdino.metrics.scores import ClassTable, Score, ScoreRequest, TaskScores, chosen, find_row, score_rows
from surgdino.tasks.scoring.folders import Folders, match_frames, paired_files
from surgdino.tasks.scoring.scoring import Scoring
from surgdino.tasks.scoring.video_files import text_of, video_files
from surgdino.tasks.tools.files import ENDINGS, ToolRows, read_tool_table

GLOBAL, VIDEO_WISE = "tools/global", "tools/video-wise"
MEAN = "mAP"
_TRUTH = ("tool_annotations", "labels", "instrument")
# Other files that the releases and `predict` keep beside the tools.
_OTHERS = ("-phase", "-timestamp", "_timestamp")


class ToolsScoring(Scoring):
    """Average precision of any number of classes a frame; tables of scores."""

    PROTOCOLS = (GLOBAL, VIDEO_WISE)

    def panel(self, request: ScoreRequest) -> TaskScores:
        """Both protocols: the mean over tools, and each tool."""
        protocols = chosen(request.protocol, self.PROTOCOLS, self.PROTOCOLS)
        videos = score_matrices(request.truths, request.predictions, len(request.classes))
        owners = operations_of([name for name, _, _ in videos], request.operations)
        frames = np.sum([truth.sum(0) for _, truth, _ in videos], axis=0)
        table: list[Score] = []
        classes: list[ClassTable] = []
        for protocol in protocols:
            ap_of = class_ap(videos, pooled=protocol == GLOBAL)

            def statistic(rows: np.ndarray, ap_of=ap_of) -> dict[str, float]:
                values = ap_of(rows)
                each = {f"AP {name}": float(value) for name, value in zip(request.classes, values, strict=True)}
                return {MEAN: float(nanmean(values)), **each}

            table += score_rows(statistic, owners, protocol)
            by_tool = zip(request.classes, ap_of(np.arange(len(videos))).tolist(), frames.tolist(), strict=True)
            rows = {name: {"AP": ap, "frames": int(count)} for name, ap, count in by_tool}
            classes.append(ClassTable("tool", protocol, rows))
        row = find_row(table, MEAN, GLOBAL)
        confusions = [of_highest(((truth, found) for _, truth, found in videos), request.classes, "tool")]
        return TaskScores("tools", table, classes, len(set(owners)), list(request.notes), row, confusions)

    def read_and_score(self, folders: Folders) -> TaskScores:
        """The classes are those given, the first truth's, or the card's."""
        folder = folders.inside(_TRUTH)
        suffix = next((s for s in (".json", ".csv") if folder.is_dir() and any(folder.glob(f"*{s}"))), ".txt")
        truth_files = video_files(folder, suffix, endings=ENDINGS[:2], ignored=(*_OTHERS, "_pred"))
        pairs = paired_files(truth_files, _predictions(folders.predictions), folders)
        classes = tuple(map(corrected, folders.classes or ()))
        truths: dict[str, np.ndarray] = {}
        scores: dict[str, np.ndarray] = {}
        for video, truth_file, file in pairs:
            truth = _truth(truth_file, folders.card)
            classes = classes or truth.classes
            kept = folders.sampled(truth.frames, truth_file)
            truths[video] = truth.in_order(classes, truth_file)[kept].astype(np.uint8)
            found = read_tool_table(file, flags=False)
            rows = match_frames(truth.frames[kept], found.frames, file, ignore_extra=folders.ignore_extra)
            scores[video] = found.in_order(classes, file)[rows]
        return self.scores(folders.request(truths, scores, classes))


def _predictions(folder: Path) -> dict[str, Path]:
    """Video -> its table of scores: CSV where there is any, since flags may lie beside it as text."""
    csv = folder.is_dir() and any(path.suffix.lower() == ".csv" for path in folder.rglob("*"))
    return video_files(folder, ".csv" if csv else ".txt", endings=ENDINGS, ignored=_OTHERS)


def _truth(path: Path, card: Card | None) -> ToolRows:
    """One label file: a table of flags with names, or the instruments of a triplets' release, whose card names them."""
    of_triplets = card if card and card.instruments else load_card("cholect50")
    if path.suffix.lower() == ".json":
        labels, problems = read_triplet_json(path, of_triplets)
        _raise(problems)
        found = labels["instrument"]
        return ToolRows(found.numbers, of_triplets.instruments, found.array.astype(np.float64))
    if text_of(path)[0].strip()[:1].isdecimal():
        table, problems = read_flags(path, of_triplets.instruments)
        _raise(problems)
        return ToolRows(table[:, 0], of_triplets.instruments, table[:, 1:].astype(np.float64))
    return read_tool_table(path, flags=True)


def _raise(problems: Sequence[Problem]) -> None:
    for problem in problems:
        if problem.severity == "error":
            raise problem.error()
