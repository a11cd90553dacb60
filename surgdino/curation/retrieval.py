"""From an archive towards a small set of wanted frames, by sample or by cluster (Oquab et al. 2023, appendix A)."""

from __future__ import annotations

import numpy as np

from surgdino.curation.clusters import Level, assign
from surgdino.curation.neighbours import nearest
from surgdino.curation.pieces import HERE, Searchers


def by_sample(
    embeddings: np.ndarray,
    rows: np.ndarray,
    queries: np.ndarray,
    each: int,
    seed: int,
    searchers: Searchers = HERE,
) -> np.ndarray:
    """int64, ascending: the `each` nearest neighbours of every query [q, D], among `rows`."""
    found = nearest(embeddings, queries, min(each, len(rows)), rows=rows, seed=seed, searchers=searchers).rows
    return np.unique(found[found >= 0])


def by_cluster(level: Level, rows: np.ndarray, queries: np.ndarray, least: int, each: int, seed: int) -> np.ndarray:
    """int64, ascending: up to `each` random frames of every cluster that more than `least` queries lie in.

    Args:
        rows: int64 [m], the frames to choose from.
        queries: unit vectors [q, D].
    """
    wanted = np.flatnonzero(np.bincount(assign(queries, level.centroids)[0], minlength=len(level.centroids)) > least)
    rng, of = np.random.default_rng(seed), level.of[rows]
    found = [rows[of == cluster] for cluster in wanted]
    found = [each_of if len(each_of) <= each else rng.choice(each_of, each, replace=False) for each_of in found]
    return np.sort(np.concatenate(found)) if found else np.empty(0, np.int64)
