"""Nearest neighbours by cosine, shard by shard: exact for as much as 200,000 frames against as many, beyond through
inverted files.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import faiss
import numpy as np

from surgdino.curation.embeddings import BLOCK, at, blocks_of

EXACT = 200_000
_PROBED = 16  # cells of an inverted file that a query looks into
_PER_CELL, _ITERATIONS = 32, 4  # frames that a cell is trained on, and how often
_SHARD = 1 << 20  # frames of an inverted file, which is in memory as float16
# Queries [b, D] and k in, cosines and places of the nearest out
_Search = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Neighbours:
    """Of m queries, the k nearest: `cosines` float32 [m, k], descending, and `rows` int64 [m, k]; -1 where fewer."""

    cosines: np.ndarray
    rows: np.ndarray


def nearest(
    embeddings: np.ndarray,
    queries: np.ndarray,
    k: int,
    *,
    rows: np.ndarray | None = None,
    seed: int = 0,
    exact: int = EXACT,
) -> Neighbours:
    """The k nearest of each query; a frame finds itself too. No more of the frames than a shard is in memory.

    Args:
        embeddings: unit vectors [n, D] to search among, any float type, mapped or not.
        queries: unit vectors [m, D], likewise.
        rows: int64, those of `embeddings` to search among; None: all.
        seed: of the cells of the inverted files; the same gives the same neighbours.
        exact: all products are computed up to the square of so many.
    """
    count = len(embeddings) if rows is None else len(rows)
    whole = count * len(queries) <= exact**2
    index = None if whole else _inverted(embeddings, rows, min(count, _SHARD), seed)
    found = faiss.ResultHeap(len(queries), k, keep_max=True)
    step = BLOCK if whole else _SHARD
    for start in range(0, count, step):
        shard = np.arange(start, min(start + step, count))
        search = _search(embeddings, shard if rows is None else rows[shard], index)
        for part, block in blocks_of(queries):
            cosines, places = search(block, k)
            places[places >= 0] += start
            found.add_result_subset(np.arange(part.start, part.stop), cosines, places)
    found.finalize()
    met = found.I if rows is None or not count else np.where(found.I >= 0, rows[found.I], -1)
    return Neighbours(found.D, met)


def _search(embeddings: np.ndarray, shard: np.ndarray, index: faiss.Index | None) -> _Search:
    """Among the rows of a shard."""
    if index is None:
        vectors = at(embeddings, shard)
        return lambda block, k: faiss.knn(block, vectors, k, faiss.METRIC_INNER_PRODUCT)
    index.reset()
    for _, block in blocks_of(embeddings, shard):
        index.add(block)
    return index.search


def _inverted(embeddings: np.ndarray, rows: np.ndarray | None, size: int, seed: int) -> faiss.Index:
    """An inverted file for shards of `size` frames, still empty."""
    count, width = len(embeddings) if rows is None else len(rows), embeddings.shape[1]
    cells = 4 * round(math.sqrt(size))
    quantizer = faiss.IndexFlatIP(width)
    index = faiss.IndexIVFScalarQuantizer(
        quantizer, width, cells, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
    )
    index.referenced_objects = [quantizer]  # type: ignore[attr-defined]  # the inverted file only points to it
    index.cp.seed, index.cp.niter, index.cp.min_points_per_centroid, index.nprobe = seed, _ITERATIONS, 1, _PROBED
    places = np.random.default_rng(seed).choice(count, min(count, _PER_CELL * cells), replace=False)
    places.sort()
    index.train(at(embeddings, places if rows is None else rows[places]))
    return index
