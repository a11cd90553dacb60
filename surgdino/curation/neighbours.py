"""Nearest neighbours by cosine, shard by shard: exact for as much as 200,000 frames against as many, beyond through
inverted files.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import faiss
import numpy as np

from surgdino.curation.embeddings import BLOCK, at, blocks_of
from surgdino.curation.pieces import HERE, Arrays, Searchers

EXACT = 200_000
_PROBED = 16  # cells of an inverted file that a query looks into
_PER_CELL, _ITERATIONS = 32, 4  # frames that a cell is trained on, and how often
_SHARD = 1 << 20  # frames of an inverted file, which is in memory as float16


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
    searchers: Searchers = HERE,
) -> Neighbours:
    """The k nearest of each query; a frame finds itself too. No more of the frames than a shard is in memory.

    Args:
        embeddings: unit vectors [n, D] to search among, any float type, mapped or not.
        queries: unit vectors [m, D], likewise.
        rows: int64, those of `embeddings` to search among; None: all.
        seed: of the cells of the inverted files; the same gives the same neighbours.
        exact: all products are computed up to the square of so many.
    """
    rows = np.arange(len(embeddings)) if rows is None else rows
    arrays = {"embeddings": embeddings, "queries": queries, "rows": rows}
    step = BLOCK
    if len(rows) * len(queries) > exact**2:
        step, index = _SHARD, _inverted(embeddings, rows, min(len(rows), _SHARD), seed)
        arrays["index"] = faiss.serialize_index(index)
    # Either of the two is large: its parts are the pieces.
    asked = _SHARD if len(rows) <= step else max(len(queries), 1)
    pieces = [
        (start, min(start + step, len(rows)), first, min(first + asked, len(queries)), k)
        for start in range(0, len(rows), step)
        for first in range(0, len(queries), asked)
    ]
    found = faiss.ResultHeap(len(queries), k, keep_max=True)
    for (start, _, first, last, _), (cosines, places) in zip(
        pieces, searchers("neighbours", _searched, arrays, pieces), strict=True
    ):
        places[places >= 0] += start
        found.add_result_subset(np.arange(first, last), cosines, places)
    found.finalize()
    return Neighbours(found.D, np.where(found.I >= 0, rows[found.I], -1) if len(rows) else found.I)


def _searched(arrays: Arrays, start: int, stop: int, first: int, last: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and places, counted from `start`, of some queries' k nearest in a shard of the rows."""
    embeddings, shard = arrays["embeddings"], arrays["rows"][start:stop]
    cosines, places = np.empty((last - first, k), np.float32), np.empty((last - first, k), np.int64)
    if (trained := arrays.get("index")) is None:
        search = partial(faiss.knn, xb=at(embeddings, shard), k=k, metric=faiss.METRIC_INNER_PRODUCT)
    else:
        index = faiss.deserialize_index(np.array(trained))
        for _, block in blocks_of(embeddings, shard):
            index.add(block)
        search = partial(index.search, k=k)
    for part, block in blocks_of(arrays["queries"][first:last]):
        cosines[part], places[part] = search(block)
    return cosines, places


def _inverted(embeddings: np.ndarray, rows: np.ndarray, size: int, seed: int) -> faiss.Index:
    """An inverted file for shards of `size` frames, still empty."""
    count, width = len(rows), embeddings.shape[1]
    cells = 4 * round(math.sqrt(size))
    quantizer = faiss.IndexFlatIP(width)
    index = faiss.IndexIVFScalarQuantizer(
        quantizer, width, cells, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
    )
    index.referenced_objects = [quantizer]  # type: ignore[attr-defined]  # the inverted file only points to it
    index.cp.seed, index.cp.niter, index.cp.min_points_per_centroid, index.nprobe = seed, _ITERATIONS, 1, _PROBED
    places = np.random.default_rng(seed).choice(count, min(count, _PER_CELL * cells), replace=False)
    places.sort()
    index.train(at(embeddings, rows[places]))
    return index
