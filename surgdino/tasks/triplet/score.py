"""How triplets are scored: AP of all components video-wise, global and as in the challenge, by maximum and by own
heads; top-k.

From files: CSV of scores against CholecT50's JSON or CholecT45's text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from surgdino.datasets.card import Card, load_card
from surgdino.datasets.triplet_files import read_flags, read_triplet_json
from surgdino.errors import SurgdinoError
from surgdino.metrics.arrays import nanmean, score_matrices
from surgdino.metrics.average_precision import class_ap
from surgdino.metrics.confusion import of_highest
from surgdino.metrics.intervals import operations_of
from surgdino.metrics.scores import ClassTable, Confusion, Score, ScoreRequest, TaskScores, chosen, find_row, score_rows
from surgdino.metrics.triplet import (
    COMPONENTS,
    DEFAULT,
    TripletMap,
    component_videos,
    protocol_parts,
    top_k_hits,
)
from surgdino.metrics.triplet import PROTOCOLS as AP_PROTOCOLS
from surgdino.tasks.scoring.folders import Folders, match_frames, paired_files
from surgdino.tasks.scoring.scoring import Scoring
from surgdino.tasks.scoring.video_files import video_files
from surgdino.tasks.triplet.components import triplet_map_of
from surgdino.tasks.triplet.files import TOP, read_triplets

TOP_K = "triplet/top-k"
MAXIMUM, OWN_HEADS = "component-maximum", "own-heads"
HEADLINE = ("AP_IVT", f"{DEFAULT}/{MAXIMUM}")
KS = (5, 10, 20)
TITLES = {"I": "instrument", "V": "verb", "T": "target", "IVT": "triplet"}

_TRUTH = ("labels", "triplet")


class TripletScoring(Scoring):
    """Average precision of triplets and their components; CSV of scores."""

    PROTOCOLS = (*AP_PROTOCOLS, TOP_K)

    def panel(self, request: ScoreRequest) -> TaskScores:
        """Video-wise AP by default, by maximum over triplets and (where given) by own heads."""
        if request.mapping is None:
            raise SurgdinoError("triplets need the mapping to their components", fix="give the dataset's card")
        table: list[Score] = []
        classes: list[ClassTable] = []
        for protocol in chosen(request.protocol, self.PROTOCOLS, (DEFAULT,)):
            if protocol == TOP_K:
                table += _top_k(request)
                continue
            pooled, challenge = protocol_parts(protocol)
            ways: dict[str, Mapping | None] = {"" if challenge else f"/{MAXIMUM}": None}
            if request.heads and not challenge:
                ways[f"/{OWN_HEADS}"] = request.heads
            for suffix, heads in ways.items():
                components = ("IVT",) if challenge else tuple(heads) if heads else COMPONENTS
                for component in components:
                    row, by_class = _average_precision(request, protocol + suffix, component, pooled, challenge, heads)
                    table += row
                    classes += by_class
        owners = operations_of(request.truths, request.operations)
        confusions = [_confusion(request, component) for component in TITLES if component != "IVT"]
        headline = find_row(table, *HEADLINE)
        return TaskScores("triplet", table, classes, len(set(owners)), list(request.notes), headline, confusions)

    def read_and_score(self, folders: Folders) -> TaskScores:
        """Without a dataset the triplets are CholecT50's, which CholecT45 shares."""
        card = folders.card if folders.card and folders.card.triplets else load_card("cholect50")
        truth_folder = folders.inside(_TRUTH)
        suffix = ".json" if truth_folder.is_dir() and any(truth_folder.glob("*.json")) else ".txt"
        predictions = video_files(folders.predictions, ".csv", ignored=[TOP])
        pairs = paired_files(video_files(truth_folder, suffix), predictions, folders)
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
        request = folders.request(truths, scores, card.triplets)
        return self.scores(replace(request, mapping=triplet_map_of(card), heads=heads or None))


def component_names(triplets: Sequence[str], component: str, mapping: TripletMap) -> list[str]:
    """Names of a component's classes, from triplets named `instrument,verb,target`; their ids where they are not."""
    classes = mapping.classes(component)
    parts = [name.split(",") for name in triplets]
    if component == "IVT" or any(len(part) != 3 for part in parts):
        return list(triplets) if component == "IVT" else [f"{component}{c}" for c in classes]
    place = ["IVT".index(letter) for letter in component]
    first = [int(np.flatnonzero(mapping.ids[component] == c)[0]) for c in classes]
    return [",".join(parts[triplet][p] for p in place) for triplet in first]


def _average_precision(
    request: ScoreRequest, protocol: str, component: str, pooled: bool, challenge: bool, heads: Mapping | None
) -> tuple[list[Score], list[ClassTable]]:
    mapping: TripletMap = request.mapping
    videos = component_videos(request.truths, request.predictions, mapping, component, heads)
    kept = ~mapping.null if challenge else np.ones(len(mapping.classes(component)), dtype=bool)
    ap_of = class_ap(videos, pooled=pooled)

    def statistic(rows: np.ndarray) -> dict[str, float]:
        return {f"AP_{component}": float(nanmean(ap_of(rows)[kept]))}

    owners = operations_of([name for name, _, _ in videos], request.operations)
    rows = score_rows(statistic, owners, protocol)
    if component not in TITLES or challenge:
        return rows, []
    values = ap_of(np.arange(len(videos)))
    frames = np.sum([truth.sum(0) for _, truth, _ in videos], axis=0)
    names = component_names(request.classes, component, mapping)
    by_class = {name: {"AP": float(values[c]), "frames": int(frames[c])} for c, name in enumerate(names)}
    return rows, [ClassTable(TITLES[component], protocol, by_class)]


def _confusion(request: ScoreRequest, component: str) -> Confusion:
    """Of the parts, by the maximum over the triplets that have one; of a hundred triplets nobody reads a table."""
    videos = component_videos(request.truths, request.predictions, request.mapping, component, None)
    names = component_names(request.classes, component, request.mapping)
    return of_highest(((truth, scores) for _, truth, scores in videos), names, TITLES[component])


def _top_k(request: ScoreRequest) -> list[Score]:
    """The share of all positives that are among their frame's k highest scores."""
    videos = score_matrices(request.truths, request.predictions, len(request.mapping))
    ks = [k for k in KS if k <= len(request.mapping)]
    hits, positives = top_k_hits(videos, ks)

    def statistic(rows: np.ndarray) -> dict[str, float]:
        total = positives[rows].sum()
        return {f"top-{k}": float(hits[rows, i].sum() / total) if total else float("nan") for i, k in enumerate(ks)}

    owners = operations_of([name for name, _, _ in videos], request.operations)
    return score_rows(statistic, owners, TOP_K)


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
