"""The seeded inputs of triplet_ivtmetrics.json, and CholecT50's triplets in the dataset's own column order.

To make the numbers anew: Python 3.11 with ivtmetrics 0.1.5, scikit-learn 1.5.2 and numpy 1.26.4 (never scikit-learn 1.6
or newer: absent classes then count as 0); `recognition = Recognition(100)`; for each video of `recipe()`
`recognition.update(truth.astype(int), scores)` and `recognition.video_end()`; then `compute_video_AP(component)`,
`compute_global_AP(component)`, both also with `ignore_null=True`, and `topK(k, component)`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from surgdino.metrics.arrays import nanmean
from surgdino.metrics.average_precision import class_ap
from surgdino.metrics.intervals import Interval, jackknife, operations_of
from surgdino.metrics.triplet import (
    COMPONENTS,
    DEFAULT,
    TripletMap,
    component_videos,
    protocol_parts,
    top_k_hits,
)

NULL_VERB = 9
# The triplets of each instrument as verb: targets, in the order of label_mapping.txt; the null triplets come last.
_TRIPLETS: list[dict[int, list[int]]] = [
    {2: [1, 0, 10], 0: [3, 2, 4, 1, 0, 12, 8, 10, 11, 13], 8: [0], 1: [2, 4, 1, 0, 12, 8, 10, 11]},
    {3: [7, 5, 3, 2, 4, 1, 0, 8, 10, 11], 2: [9, 3, 2, 1, 0, 10], 0: [1, 8, 13], 1: [2, 4, 0, 8, 10]},
    {3: [5, 3, 2, 4, 1, 0, 8, 10], 5: [5, 11], 2: [5, 3, 2, 1, 0, 10, 11], 1: [0, 8]},
    {3: [10], 5: [9, 5, 3, 2, 1, 8, 10, 11], 2: [1, 0, 10]},
    {4: [5, 3, 2, 4, 1]},
    {6: [6], 2: [2, 4, 1, 0, 10], 7: [7, 4, 8], 1: [0, 8, 10]},
]


def mapping_table() -> np.ndarray:
    """int [100, 6]: IVT, I, V, T, IV, IT."""
    rows = [(i, v, t) for i, verbs in enumerate(_TRIPLETS) for v, targets in verbs.items() for t in targets]
    rows += [(i, NULL_VERB, 14) for i in range(6)]
    return np.array([(n, i, v, t, 10 * i + v, 15 * i + t) for n, (i, v, t) in enumerate(rows)])


def recipe(videos: int = 4) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Four videos of other lengths and triplets: some classes in no video, scores that half know the truth, no ties."""
    rng = np.random.default_rng(20240607)
    truths, scores = {}, {}
    for video in range(videos):
        frames = 150 + 40 * video
        rates = rng.random(100) ** 6 * (rng.random(100) < 0.6)
        rates[[17, 60, 94]] = 0.2
        rates[[3, 40, 98]] = 0.0
        truth = rng.random((frames, 100)) < rates
        scores[f"VID{video:02d}"] = 0.4 * truth + rng.random((frames, 100)) * rng.uniform(0.5, 1.0, size=100)
        truths[f"VID{video:02d}"] = truth
    return truths, scores


class TripletScores(NamedTuple):
    mean_ap: dict[str, float]
    class_ap: dict[str, dict[int, float]]


def score_triplets(
    truths: dict, scores: dict, mapping: TripletMap, protocol: str = DEFAULT, heads: dict | None = None
) -> TripletScores:
    """One protocol's numbers in one call, from the functions that the panel is made of."""
    pooled, challenge = protocol_parts(protocol)
    by_class = {}
    for component in ("IVT",) if challenge else COMPONENTS:
        videos, classes = component_videos(truths, scores, mapping, component, heads), mapping.classes(component)
        kept = ~mapping.null if challenge else np.ones(len(classes), bool)
        values = class_ap(videos, pooled=pooled)(np.arange(len(videos)))[kept]
        by_class[component] = dict(zip(classes[kept].tolist(), values.tolist(), strict=True))
    return TripletScores({name: float(nanmean(np.array(list(ap.values())))) for name, ap in by_class.items()}, by_class)


def top_k(truths: dict, scores: dict, mapping: TripletMap, *, k: int, component: str = "IVT") -> float:
    hits, positives = top_k_hits(component_videos(truths, scores, mapping, component), [k])
    return float(hits.sum() / positives.sum()) if positives.any() else float("nan")


def triplet_interval(
    truths: dict, scores: dict, mapping: TripletMap, protocol: str, *, operations: dict | None = None
) -> Interval:
    """The interval of AP_IVT over operations, with what is left scored anew without each of them."""
    names = list(truths)

    def mean_ap(rows: np.ndarray) -> dict[str, float]:
        left = [{names[row]: side[names[row]] for row in rows} for side in (truths, scores)]
        return {"IVT": score_triplets(*left, mapping, protocol).mean_ap["IVT"]}

    return jackknife(mean_ap, operations_of(names, operations), shares=["IVT"])["IVT"]
