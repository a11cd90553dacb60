"""A triplet's parts: which component each of the 100 holds, its targets, and one score from several heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from surgdino.datasets.card import Card
from surgdino.datasets.triplets import triplet_table
from surgdino.metrics.triplet import TripletMap, component_maximum, triplet_map

PARTS = ("I", "V", "T")
NULL_VERB = "null_verb"


def triplet_map_of(card: Card) -> TripletMap:
    """The card's triplets and their components."""
    return triplet_map(triplet_table(card), null_verb=card.verbs.index(NULL_VERB) if NULL_VERB in card.verbs else -1)


def component_targets(triplets: np.ndarray, mapping: TripletMap) -> dict[str, np.ndarray]:
    """Targets of every head: `I`, `V`, `T` and `IVT`, 0/1 [n, classes].

    A component is present where a triplet that holds it is (the maximum over triplets), as in the scores.
    """
    return {name: component_maximum(triplets, name, mapping) for name in (*PARTS, "IVT")}


def part_of(part: str, mapping: TripletMap) -> np.ndarray:
    """The place of each triplet's own among the classes of a part, int64 [triplets]."""
    return np.searchsorted(mapping.classes(part), mapping.ids[part])


def names_of(part: str, mapping: TripletMap, classes: Sequence[str]) -> tuple[str, ...]:
    """The names of a part's classes, from those of the triplets, `instrument,verb,target` each."""
    first = np.unique(mapping.ids[part], return_index=True)[1]
    return tuple(classes[place].split(",")[PARTS.index(part)] for place in first)


def combined_scores(probabilities: Mapping[str, np.ndarray], mapping: TripletMap, weight: float) -> np.ndarray:
    """Scores of the triplets, [n, triplets] in [0, 1], from the triplet head and those of the three parts.

    The weighted geometric mean (p_IVT (p_I p_V p_T)^w)^(1 / (1 + 3w)): a triplet seen in three frames has parts that
    were seen in hundreds, and without its instrument there is no triplet.

    Args:
        probabilities: of every head, [n, classes of the component].
        mapping: triplets to components.
        weight: w; 0 takes the triplet head alone.
    """
    logs = {name: np.log(np.maximum(values.astype(np.float64), 1e-30)) for name, values in probabilities.items()}
    total = logs["IVT"]
    for part in PARTS:
        total = total + weight * logs[part][:, part_of(part, mapping)]
    return np.exp(total / (1 + len(PARTS) * weight)).astype(np.float32)
