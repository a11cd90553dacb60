"""SemDeDup (Abbas et al. 2023, arXiv 2303.09540): in each cluster, frames too near to one that stays are left out."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import numpy as np

from surgdino.curation.clusters import Level, distances_within
from surgdino.curation.embeddings import at

Order = Literal["hard", "easy", "random"]
_AT_ONCE = 2048  # frames of a cluster that are compared with those before them


def semdedup(
    embeddings: np.ndarray, rows: np.ndarray, level: Level, threshold: float, order: Order, seed: int
) -> np.ndarray:
    """int64, ascending: of `rows`, those that are left out: a frame before them in their cluster is as near as
    `threshold` or nearer. Walked from the far frames to the centroid (`hard`), from there (`easy`), or at random."""
    distances = distances_within(embeddings, level, rows)
    rank = {"hard": -distances, "easy": distances, "random": np.random.default_rng(seed).random(len(rows))}[order]
    ordered = rows[np.lexsort((rank, level.of[rows]))]
    edges = np.flatnonzero(np.diff(level.of[ordered], prepend=-1, append=-1))
    out = []
    for start, stop in pairwise(edges):
        members = ordered[start:stop]
        unit = at(embeddings, members)
        for first in range(0, len(members), _AT_ONCE):
            block, here = unit[first : first + _AT_ONCE], members[first : first + _AT_ONCE]
            highest = np.tril(block @ block.T + 2, -1).max(1) - 2  # with those before it
            for before in range(0, first, _AT_ONCE):
                highest = np.maximum(highest, (block @ unit[before : before + _AT_ONCE].T).max(1))
            out.append(here[highest >= threshold])
    return np.sort(np.concatenate(out)) if out else np.empty(0, np.int64)
