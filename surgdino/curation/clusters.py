"""Clusters of embeddings: k-means, and k-means of k-means with resampling, whose centroids follow the content's variety
and not its frequency (Vo et al. 2024, arXiv 2405.15613).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import faiss
import numpy as np

from surgdino.curation.embeddings import blocks_of

_ITERATIONS = 15
_POINTS = 64  # of a cluster that k-means learns from; more make it slower, hardly better
_RESAMPLINGS = 5
_MANY = 1000
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


def kmeans(points: np.ndarray, k: int, seed: int, rows: np.ndarray | None = None) -> np.ndarray:
    """float32 [k, D] centroids of points [n, D] (L2), or of `rows` of them; at most 64 k points are looked at."""
    count = len(points) if rows is None else len(rows)
    chosen = np.arange(count)
    if count > _POINTS * k:
        chosen = np.sort(np.random.default_rng(seed).choice(count, _POINTS * k, replace=False))
    sample = np.ascontiguousarray(points[chosen if rows is None else rows[chosen]], np.float32)
    # Spread out at the start (k-means++; by a Markov chain where there are many): from points drawn at random, what is
    # shown often would keep as many centroids as it has frames.
    start = faiss.ClusteringInitMethod_AFK_MC2 if k > _MANY else faiss.ClusteringInitMethod_KMEANS_PLUS_PLUS
    options = {"niter": _ITERATIONS, "seed": seed + 1, "min_points_per_centroid": 1, "init_method": start}
    clustering = faiss.Kmeans(sample.shape[1], min(k, len(sample)), **options)
    clustering.train(sample)
    return np.asarray(clustering.centroids, np.float32)


def assign(points: np.ndarray, centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest centroid of each point, int64 [n], and the squared distance to it, float32 [n]."""
    index = faiss.IndexFlatL2(centroids.shape[1])
    index.add(centroids)
    of, distances = np.empty(len(points), np.int64), np.empty(len(points), np.float32)
    for part, block in blocks_of(points):
        found = index.search(block, 1)
        distances[part], of[part] = found[0][:, 0], found[1][:, 0]
    return of, distances


def hierarchy(embeddings: np.ndarray, sizes: Sequence[int], seed: int, resamplings: int = _RESAMPLINGS) -> list[Level]:
    """Levels from the finest to the coarsest; each clusters the centroids of the one below.

    At each level k-means is run again on the points nearest to each centroid, half of a mean cluster's size, and all
    points are assigned anew, `resamplings` times: that takes the density of the data out of the centroids.

    Args:
        embeddings: unit vectors [n, D].
        sizes: clusters of each level, descending.
    """
    found: list[Level] = []
    points = embeddings
    for depth, k in enumerate(sizes):
        k = min(k, len(points))
        centroids = kmeans(points, k, seed + 1000 * depth)
        of, distances = assign(points, centroids)
        nearest = max(1, len(points) // (2 * k))
        for turn in range(resamplings if len(points) > 2 * k else 0):
            centroids = kmeans(points, k, seed + 1000 * depth + turn + 1, _closest(of, distances, nearest))
            of, distances = assign(points, centroids)
        found.append(Level(of if not found else of[found[-1].of], centroids))
        points = centroids
    return found


def _closest(of: np.ndarray, distances: np.ndarray, count: int) -> np.ndarray:
    """int64, ascending: the `count` points of each cluster that are nearest to its centroid."""
    ordered = np.lexsort((distances, of))
    starts = np.searchsorted(of[ordered], of[ordered])
    return np.sort(ordered[np.arange(len(of)) - starts < count])


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


def distances_within(embeddings: np.ndarray, level: Level) -> np.ndarray:
    """float32 [n]: the squared distance of each frame to the centroid of its cluster."""
    distances = np.empty(len(embeddings), np.float32)
    for part, block in blocks_of(embeddings):
        distances[part] = ((block - level.centroids[level.of[part]]) ** 2).sum(1)
    return distances
