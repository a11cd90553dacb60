"""Clusters of embeddings: k-means, and k-means of k-means with resampling, whose centroids follow the content's variety
and not its frequency (Vo et al. 2024, arXiv 2405.15613).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import faiss
import numpy as np

from surgdino.curation.balance import water_level
from surgdino.curation.embeddings import BLOCK, at, blocks_of

_ITERATIONS = 15
_POINTS = 64  # of a cluster that k-means learns from; more make it slower, hardly better
_SEEN = 256  # points of a cluster among which the nearest to its centroid are taken
_RESAMPLINGS = 5
_DIRECT = 400  # clusters that one k-means finds; more are split off coarser ones
_LEAST = 4


@dataclass(frozen=True)
class Level:
    """One level of a hierarchy.

    Attributes:
        of: int64 [n], the cluster of each frame.
        centroids: float32 [k, D].
    """

    of: np.ndarray
    centroids: np.ndarray


def levels_for(n: int) -> list[int]:
    """Numbers of clusters from the finest level to the coarsest: a twentieth of the frames, but no more than 4 sqrt(n);
    an eighth of that at each further level, down to some hundreds (read off the published configurations)."""
    sizes = [max(_LEAST, min(n // 20, round(4 * math.sqrt(n))))]
    while sizes[-1] > 400:
        sizes.append(sizes[-1] // 8)
    return sizes


def kmeans(points: np.ndarray, k: int, seed: int) -> np.ndarray:
    """float32 [k, D] centroids of points [n, D] (L2); at most 64 k of them are looked at."""
    sample = np.ascontiguousarray(points[_some(len(points), _POINTS * k, seed)], np.float32)
    # Spread out at the start (k-means++ by a Markov chain): from points drawn at random, what is shown often would keep
    # as many centroids as it has frames.
    start = faiss.ClusteringInitMethod_AFK_MC2
    options = {"niter": _ITERATIONS, "seed": seed + 1, "min_points_per_centroid": 1, "init_method": start}
    clustering = faiss.Kmeans(sample.shape[1], min(k, len(sample)), **options)
    clustering.train(sample)
    return np.asarray(clustering.centroids, np.float32)


def _some(count: int, most: int, seed: int) -> np.ndarray | slice:
    """Ascending, `most` of so many places; all where there are fewer."""
    if count <= most:
        return slice(None)
    return np.sort(np.random.default_rng(seed).choice(count, most, replace=False))


def assign(points: np.ndarray, centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest centroid of each point, int64 [n], and the squared distance to it, float32 [n]."""
    of, distances = np.empty(len(points), np.int64), np.empty(len(points), np.float32)
    for start in range(0, len(points), BLOCK):
        part = slice(start, start + BLOCK)
        found = faiss.knn(np.asarray(points[part], np.float32), centroids, 1)
        distances[part], of[part] = found[0][:, 0], found[1][:, 0]
    return of, distances


def flattened(points: np.ndarray, k: int, seed: int, resamplings: int) -> np.ndarray:
    """float32 [k, D] centroids, without the density of the points, float32 [n, D], as far as that can be.

    k-means is run again on the points nearest to each centroid, half of a mean cluster's size, `resamplings` times.
    """
    centroids = kmeans(points, min(k, len(points)), seed)
    for turn in range(resamplings if len(points) > 2 * k else 0):
        chosen = _closest(*assign(points, centroids), max(1, len(points) // (2 * k)))
        centroids = kmeans(points[chosen], k, seed + turn + 1)
    return centroids


def _closest(of: np.ndarray, distances: np.ndarray, count: int) -> np.ndarray:
    """int64, ascending: the `count` points of each cluster that are nearest to its centroid."""
    ordered = np.lexsort((distances, of))
    starts = np.searchsorted(of[ordered], of[ordered])
    return np.sort(ordered[np.arange(len(of)) - starts < count])


def clustered(embeddings: np.ndarray, k: int, seed: int, rows: np.ndarray | None = None, resamplings: int = 0) -> Level:
    """All frames in k clusters, which are those of `rows`, int64 [m]; None: of all.

    More than 400 are found in two steps, as it is published for many: sqrt(k) of them, of which each is split into as
    many as the others, so far as it has frames. A frame then belongs to the nearest centroid within the coarse one.
    """
    rows = np.arange(len(embeddings)) if rows is None else rows

    def found(among: np.ndarray, k: int, seed: int) -> np.ndarray:
        return flattened(at(embeddings, among[_some(len(among), _SEEN * k, seed)]), k, seed, resamplings)

    coarse = found(rows, k if k <= _DIRECT else max(_DIRECT, round(math.sqrt(k))), seed)
    of = np.empty(len(embeddings), np.int64)
    for part, block in blocks_of(embeddings):
        of[part] = assign(block, coarse)[0]
    if k <= _DIRECT:
        return Level(of, coarse)
    inside = members(of[rows], len(coarse))
    share = water_level((np.array([len(each) for each in inside]) + 1) // 2, k, np.random.default_rng(seed))
    centroids: list[np.ndarray] = []
    for cell, own in enumerate(members(of, len(coarse))):
        begins = sum(map(len, centroids))
        fine = found(rows[inside[cell]], int(share[cell]), seed + cell + 1) if share[cell] else coarse[cell : cell + 1]
        for part, block in blocks_of(embeddings, own):
            of[own[part]] = begins + assign(block, fine)[0]
        centroids.append(fine)
    return Level(of, np.concatenate(centroids))


def members(of: np.ndarray, k: int) -> list[np.ndarray]:
    """The places of each of k clusters, ascending."""
    return np.split(np.argsort(of, kind="stable"), np.cumsum(np.bincount(of, minlength=k))[:-1])


def hierarchy(
    embeddings: np.ndarray,
    sizes: Sequence[int],
    seed: int,
    resamplings: int = _RESAMPLINGS,
    rows: np.ndarray | None = None,
) -> list[Level]:
    """Levels from the finest to the coarsest; each clusters the centroids of the one below, all of them `flattened`.

    Args:
        embeddings: unit vectors [n, D].
        sizes: clusters of each level, descending.
        rows: int64, the frames whose clusters these are; None: all. All frames are assigned to them.
    """
    levels = [clustered(embeddings, sizes[0], seed, rows, resamplings)]
    for depth, k in enumerate(sizes[1:], 1):
        below = levels[-1]
        centroids = flattened(below.centroids, k, seed + 1000 * depth, resamplings)
        levels.append(Level(assign(below.centroids, centroids)[0][below.of], centroids))
    return levels


def entropy(of: np.ndarray, k: int, weights: np.ndarray | None = None) -> float:
    """Of the distribution of frames over k clusters, as a share of its largest value: 1 where all hold as many."""
    mass = np.bincount(of, weights, minlength=k)
    share = mass[mass > 0] / mass.sum()
    return float(-(share * np.log(share)).sum() / math.log(k)) if k > 1 else 1.0


def medoids(embeddings: np.ndarray, level: Level) -> np.ndarray:
    """int64 [k]: the frame nearest to each centroid; -1 for an empty cluster."""
    ordered = np.lexsort((distances_within(embeddings, level), level.of))
    first = np.full(len(level.centroids), -1, np.int64)
    clusters, places = np.unique(level.of[ordered], return_index=True)
    first[clusters] = ordered[places]
    return first


def distances_within(embeddings: np.ndarray, level: Level, rows: np.ndarray | None = None) -> np.ndarray:
    """float32 [n]: the squared distance of each frame to the centroid of its cluster; or of `rows`, int64 [m]."""
    of = level.of if rows is None else level.of[rows]
    distances = np.empty(len(of), np.float32)
    for part, block in blocks_of(embeddings, rows):
        block -= level.centroids[of[part]]
        distances[part] = np.einsum("nd,nd->n", block, block)
    return distances
