"""Groups of frames that show the same: connected by cosines of a threshold or more (Oquab et al. 2023, appendix A).

Frames lie in cells, each with the centroid that is nearest to it. A cosine of t or more means a distance of at most
r = sqrt(2 - 2 t); so two frames of different cells can only be as near where each is within r of the border between the
cells, and the frame x of cell a is (x.a - x.b) / |a - b| from the border with b. A frame is compared with its own cell
and with those whose border is within r: no pair is missed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import faiss
import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from surgdino.curation.embeddings import at, blocks_of
from surgdino.curation.neighbours import EXACT
from surgdino.curation.pieces import HERE, Arrays, Searchers

_AT_ONCE = 2048  # frames that are compared with as many
_ROUNDING = 1e-3  # of float16 and of products
_LEARNT, _ITERATIONS = 32, 5  # frames that a cell's centroid is the mean of, and how often that is improved
_SCORES = 1 << 25  # products of frames and centroids in memory
_CELLS = 64  # that are searched as a piece
_VISITED = 32  # cells that a frame is compared with at most, beyond EXACT: those whose border is nearest


def across(
    embeddings: np.ndarray,
    rows: np.ndarray,
    threshold: float,
    seed: int,
    exact: int = EXACT,
    searchers: Searchers = HERE,
) -> np.ndarray:
    """int64 [m]: for each of `rows` the number of its group.

    Args:
        embeddings: unit vectors [n, D], mapped or not.
        exact: for more frames than this, a frame is compared with 32 cells at most.
    """
    centroids = _centroids(embeddings, rows, seed)
    cell, visits = _cells(embeddings, rows, centroids, threshold, _VISITED if len(rows) > exact else None)
    order = np.argsort(visits[:, 1], kind="stable")
    bounds = [np.cumsum(np.bincount(of, minlength=len(centroids))) for of in (cell, visits[:, 1])]
    arrays = {
        "embeddings": embeddings,
        "rows": rows,
        "threshold": np.array(threshold),
        "members": np.argsort(cell, kind="stable"),
        "visitors": visits[order, 0],
        "bounds": np.pad(np.stack(bounds), ((0, 0), (1, 0))),
    }
    del cell, visits, order
    pieces = [(first, min(first + _CELLS, len(centroids))) for first in range(0, len(centroids), _CELLS)]
    met = [edges for (edges,) in searchers("duplicates", _met, arrays, pieces)]
    return _components(np.concatenate(met), len(rows))


def _met(arrays: Arrays, first: int, last: int) -> tuple[np.ndarray]:
    """The edges that are found in some of the cells."""
    met, threshold = [np.empty((0, 2), np.int64)], float(arrays["threshold"])
    for cell in range(first, last):
        (home, own), (others, more) = arrays["bounds"][:, cell : cell + 2]
        frames = arrays["members"][home:own], arrays["visitors"][others:more]
        met.extend(_alike(arrays["embeddings"], arrays["rows"], *frames, threshold))
    return (np.concatenate(met),)


def _centroids(embeddings: np.ndarray, rows: np.ndarray, seed: int) -> np.ndarray:
    """float32 [k, D], unit vectors: one where all may meet all, else 2 sqrt(m), each the mean of some frames."""
    count = 1 if len(rows) <= 2 * _AT_ONCE else 2 * round(math.sqrt(len(rows)))
    sample = np.sort(np.random.default_rng(seed).choice(len(rows), min(len(rows), _LEARNT * count), replace=False))
    options = {"niter": _ITERATIONS, "seed": seed + 1, "spherical": True, "min_points_per_centroid": 1}
    learnt = faiss.Kmeans(embeddings.shape[1], count, **options)
    learnt.train(at(embeddings, rows[sample]))
    return np.asarray(learnt.centroids, np.float32)


def _cells(
    embeddings: np.ndarray, rows: np.ndarray, centroids: np.ndarray, threshold: float, most: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """The cell of each of `rows`, int64 [m], and pairs (place in `rows`, further cell), int32 [v, 2], in which frames
    as near may lie; of two cells the later one only.

    Args:
        most: of the further cells of a frame; those whose border is nearest.
    """
    apart = np.sqrt(np.maximum(2 - 2 * centroids @ centroids.T, _ROUNDING**2))
    reach = (math.sqrt(max(2 - 2 * threshold, 0)) + _ROUNDING) * apart  # how much nearer the own centroid may be
    reach[np.tril_indices(len(reach))] = -np.inf
    cell, visits = np.empty(len(rows), np.int64), [np.empty((0, 2), np.int32)]
    for part, block in blocks_of(embeddings, rows, max(256, _SCORES // len(centroids))):
        scores = block @ centroids.T
        home = cell[part] = scores.argmax(1)
        own = scores.max(1, keepdims=True)
        place, further = np.nonzero(scores + reach[home] >= own)
        if most is not None:
            border = (own[place, 0] - scores[place, further]) / apart[home[place], further]
            order = np.lexsort((border, place))
            order = order[np.arange(len(place)) - np.searchsorted(place, place) < most]
            place, further = place[order], further[order]
        visits.append(np.stack([place + part.start, further], 1).astype(np.int32))
    return cell, np.concatenate(visits)


def _alike(
    embeddings: np.ndarray, rows: np.ndarray, home: np.ndarray, others: np.ndarray, threshold: float
) -> Iterator[np.ndarray]:
    """Edges, places in `rows`, int64 [e, 2], between the frames of a cell, and from them to its visitors."""
    for start in range(0, len(home), _AT_ONCE):
        here = home[start : start + _AT_ONCE]
        vectors, against = at(embeddings, rows[here]), np.concatenate([home[start:], others])
        for first in range(0, len(against), _AT_ONCE):
            there = against[first : first + _AT_ONCE]
            i, j = np.nonzero(vectors @ at(embeddings, rows[there]).T >= threshold)
            if len(i) > len(here) + len(there):  # no more edges than frames, which connect the same
                of = _components(np.stack([i, len(here) + j], 1), len(here) + len(there))
                frames, one = np.concatenate([here, there]), np.unique(of, return_index=True)[1]
                yield np.stack([frames, frames[one[of]]], 1)
            else:
                yield np.stack([here[i], there[j]], 1)


def _components(edges: np.ndarray, count: int) -> np.ndarray:
    """int64 [count]: the connected component of each node."""
    graph = coo_matrix((np.ones(len(edges), bool), (edges[:, 0], edges[:, 1])), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.int64)
