"""Balanced choice: from a tree of clusters, as evenly as their sizes allow, or as weights that draw as evenly."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def water_level(sizes: np.ndarray, target: int, rng: np.random.Generator) -> np.ndarray:
    """How many to take of each of k groups, int64 [k], at most `target` in all, as evenly as possible.

    Each gives min(c, its size) with the largest whole c that fits; what is left goes, one each, to random groups that
    have more (Vo et al. 2024, arXiv 2405.15613, section 3.3).
    """
    sizes = np.asarray(sizes, np.int64)
    if sizes.sum() <= target:
        return sizes.copy()
    ordered = np.sort(sizes)
    below = np.concatenate([[0], np.cumsum(ordered)[:-1]])  # given by the smaller groups, taken whole
    largest = (target - below) // np.arange(len(sizes), 0, -1)  # an even share of what is left for the others
    level = int(largest[np.argmax(largest < ordered)])
    taken = np.minimum(sizes, level)
    more = np.flatnonzero(sizes > level)
    taken[rng.choice(more, target - int(taken.sum()), replace=False)] += 1
    return taken


def choose(paths: Sequence[np.ndarray], target: int, seed: int) -> np.ndarray:
    """int64, ascending: `target` of n frames, balanced at every level of a tree from the top down; at random in a leaf.

    Args:
        paths: int [n] each, the group of each frame from the coarsest level to the finest; nothing is needed of how the
            levels nest: a group that lies under two others counts as two.
    """
    n = len(paths[0])
    rng = np.random.default_rng(seed)
    ordered = np.lexsort((rng.permutation(n), *reversed(paths)))
    keys = [path[ordered] for path in paths]
    chosen = np.zeros(n, bool)

    def fill(start: int, stop: int, depth: int, wanted: int) -> None:
        if depth == len(keys) or wanted >= stop - start:
            chosen[ordered[start : start + wanted]] = True
            return
        part = keys[depth][start:stop]
        edges = np.concatenate([[0], np.flatnonzero(np.diff(part)) + 1, [stop - start]])
        for first, last, count in zip(edges, edges[1:], water_level(np.diff(edges), wanted, rng), strict=False):
            fill(start + int(first), start + int(last), depth + 1, int(count))

    fill(0, n, 0, min(target, n))
    return np.flatnonzero(chosen)


def even_weights(paths: Sequence[np.ndarray]) -> np.ndarray:
    """float64 [n], mean 1: drawn so, every group is met as often as its siblings, at every level.

    Args:
        paths: as `choose` takes them.
    """
    n = len(paths[0])
    weights, parents = np.ones(n), np.zeros(n, np.int64)
    for path in paths:
        _, first, groups = np.unique(parents * (int(path.max()) + 1) + path, return_index=True, return_inverse=True)
        siblings = np.bincount(parents[first])  # groups under each parent
        weights /= siblings[parents]
        parents = groups
    weights /= np.bincount(parents)[parents]
    return weights / weights.mean()
