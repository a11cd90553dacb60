"""Triplets: AP of all components video-wise, global and as in the challenge, by maximum and by own heads; top-k."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from surgdino.errors import SurgdinoError
from surgdino.metrics.average_precision import RankedScores, average_precision
from surgdino.metrics.intervals import operations_of
from surgdino.metrics.pairing import score_matrices
from surgdino.metrics.result import nanmean
from surgdino.metrics.scores import ClassTable, Score, ScoreRequest, TaskScores, chosen, find_row, score_rows
from surgdino.metrics.triplet import COMPONENTS, DEFAULT, TripletMap, component_videos, protocol_parts
from surgdino.metrics.triplet import PROTOCOLS as AP_PROTOCOLS

TOP_K = "triplet/top-k"
PROTOCOLS = (*AP_PROTOCOLS, TOP_K)
MAXIMUM, OWN_HEADS = "component-maximum", "own-heads"
HEADLINE = ("AP_IVT", f"{DEFAULT}/{MAXIMUM}")
KS = (5, 10, 20)
TITLES = {"I": "instrument", "V": "verb", "T": "target", "IVT": "triplet"}

ClassAP = Callable[[np.ndarray], np.ndarray]


def panel(request: ScoreRequest) -> TaskScores:
    """Video-wise AP by default, by maximum over triplets and (where given) by own heads; see `panels.score_task`."""
    if request.mapping is None:
        raise SurgdinoError("triplets need the mapping to their components", fix="give the dataset's card")
    table: list[Score] = []
    classes: list[ClassTable] = []
    for protocol in chosen(request.protocol, PROTOCOLS, (DEFAULT,)):
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
    return TaskScores("triplet", table, classes, len(set(owners)), list(request.notes), find_row(table, *HEADLINE))


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
    class_ap = _pooled_ap(videos) if pooled else _video_wise_ap(videos)

    def statistic(rows: np.ndarray) -> dict[str, float]:
        return {f"AP_{component}": float(nanmean(class_ap(rows)[kept]))}

    owners = operations_of([name for name, _, _ in videos], request.operations)
    rows = score_rows(statistic, owners, protocol, resamples=request.resamples, seed=request.seed)
    if component not in TITLES or challenge:
        return rows, []
    values = class_ap(np.arange(len(videos)))
    frames = np.sum([truth.sum(0) for _, truth, _ in videos], axis=0)
    names = component_names(request.classes, component, mapping)
    by_class = {name: {"AP": float(values[c]), "frames": int(frames[c])} for c, name in enumerate(names)}
    return rows, [ClassTable(TITLES[component], protocol, by_class)]


def _video_wise_ap(videos: list) -> ClassAP:
    by_video = np.stack([average_precision(truth, score) for _, truth, score in videos])
    return lambda rows: nanmean(by_video[rows], 0)


def _pooled_ap(videos: list) -> ClassAP:
    truth, score = (np.concatenate([video[side] for video in videos]) for side in (1, 2))
    ranked = RankedScores(truth, score, np.repeat(np.arange(len(videos)), [len(video[1]) for video in videos]))
    return lambda rows: ranked.average_precision(np.bincount(rows, minlength=len(videos)))


def _top_k(request: ScoreRequest) -> list[Score]:
    """The share of all positives that are among their frame's k highest scores, as `triplet.top_k`."""
    videos = score_matrices(request.truths, request.predictions, len(request.mapping))
    ks = [k for k in KS if k <= len(request.mapping)]
    hits = np.zeros((len(videos), len(ks)))
    positives = np.zeros(len(videos))
    for place, (_, truth, score) in enumerate(videos):
        ranked = np.take_along_axis(truth, np.argsort(-score, axis=1, kind="stable"), 1)
        hits[place] = [ranked[:, :k].sum() for k in ks]
        positives[place] = truth.sum()

    def statistic(rows: np.ndarray) -> dict[str, float]:
        total = positives[rows].sum()
        return {f"top-{k}": float(hits[rows, i].sum() / total) if total else float("nan") for i, k in enumerate(ks)}

    owners = operations_of([name for name, _, _ in videos], request.operations)
    return score_rows(statistic, owners, TOP_K, resamples=request.resamples, seed=request.seed)
