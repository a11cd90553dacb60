"""Frames that come twice: along the time of an operation first, which is linear, then across operations by neighbours.

A threshold is a cosine of embeddings. It does not carry over from one backbone to another, so it is either given or
taken from the similarities of the data themselves; `Calibration` shows these.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from surgdino.curation.embeddings import at
from surgdino.curation.neighbours import Index

_GAPS = (1.0, 5.0, 30.0)  # seconds between the frames of a pair
_PAIRS = 20_000  # that a distribution is drawn from
_WINDOW = 64  # kept frames that a new one is compared with
_NEIGHBOURS = 64


@dataclass(frozen=True)
class Calibration:
    """How alike frames of this data are: name (`1 s`, `5 s`, `30 s`, `another operation`) -> cosines, ascending."""

    cosines: dict[str, np.ndarray]

    def quantile(self, name: str, share: float) -> float:
        """The cosine below which `share` of such pairs lie; NaN where there are none."""
        found = self.cosines[name]
        return float(np.quantile(found, share)) if len(found) else float("nan")


def calibrate(
    embeddings: np.ndarray, times: np.ndarray, video_of: np.ndarray, operation_of: np.ndarray, seed: int
) -> Calibration:
    """Cosines of random pairs of frames.

    Args:
        embeddings: unit vectors [n, D].
        times: float64 [n], seconds, ascending within a video.
        video_of, operation_of: int [n]; the frames of a video are together.
    """
    rng, n = np.random.default_rng(seed), len(times)
    first = np.sort(rng.choice(n, min(n, _PAIRS), replace=False))
    found = {}
    ends = np.append(np.flatnonzero(np.diff(video_of)) + 1, n)
    for gap in _GAPS:
        # The first frame at least so much later; a pair only where it is not much later than that.
        last = ends[np.searchsorted(ends, first, side="right")]
        second = np.array(
            [a + np.searchsorted(times[a:b], times[a] + gap - 1e-3) for a, b in zip(first, last, strict=True)]
        )
        there = second < last
        there[there] &= times[second[there]] - times[first[there]] < 1.5 * gap
        found[f"{gap:g} s"] = _cosines(embeddings, first[there], second[there])
    other = rng.integers(0, n, len(first))
    apart = operation_of[other] != operation_of[first]
    found["another operation"] = _cosines(embeddings, first[apart], other[apart])
    return Calibration(found)


def _cosines(embeddings: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    pairs = (at(embeddings, rows) for rows in (first, second))
    return np.sort(np.einsum("nd,nd->n", *pairs)) if len(first) else np.empty(0, np.float32)


def along_time(embeddings: np.ndarray, operation_of: np.ndarray, threshold: float) -> np.ndarray:
    """int64 [n]: for each frame the kept frame of its operation that stands for it; itself where it is kept.

    A frame is kept if no kept frame among the last 64 of its operation is at least as near as `threshold`.

    Args:
        embeddings: unit vectors [n, D], in the order of time.
        operation_of: int [n].
    """
    stands_for = np.arange(len(embeddings))
    ordered = np.argsort(operation_of, kind="stable")
    edges = np.flatnonzero(np.diff(operation_of[ordered], prepend=-1, append=-1))
    for start, stop in pairwise(edges):
        of_operation = ordered[start:stop]
        rows = at(embeddings, of_operation)
        kept: deque[int] = deque(maxlen=_WINDOW)
        recent = np.empty((_WINDOW, rows.shape[1]), np.float32)  # of `kept`, in a ring
        count = 0
        for i, row in enumerate(rows):
            filled = min(count, _WINDOW)
            cosines = recent[:filled] @ row
            if filled and cosines.max() >= threshold:
                slot = int(cosines.argmax())
                age = (count - 1 - slot) % _WINDOW  # 0: the one kept last
                stands_for[of_operation[i]] = of_operation[kept[len(kept) - 1 - age]]
                continue
            recent[count % _WINDOW] = row
            kept.append(i)
            count += 1
    return stands_for


def across(embeddings: np.ndarray, rows: np.ndarray, threshold: float, seed: int) -> np.ndarray:
    """int64 [m]: for each of `rows` the number of its group; a group is connected by cosines of `threshold` or more.

    Edges are those to the 64 nearest neighbours, groups their connected components (Oquab et al. 2023, appendix A).
    """
    near = Index(embeddings, rows, seed=seed).search(at(embeddings, rows), min(_NEIGHBOURS, len(rows)))
    place = np.full(len(embeddings), -1, np.int64)
    place[rows] = np.arange(len(rows))
    i, j = np.nonzero((near.cosines >= threshold) & (near.rows >= 0))
    edges = coo_matrix((np.ones(len(i), bool), (i, place[near.rows[i, j]])), shape=(len(rows), len(rows)))
    return connected_components(edges, directed=False)[1].astype(np.int64)


def nearest_of(embeddings: np.ndarray, others: np.ndarray, seed: int) -> np.ndarray:
    """float32 [n]: the largest cosine of each frame with any of `others` [m, D]."""
    return Index(others, seed=seed).search(embeddings, 1).cosines[:, 0]
