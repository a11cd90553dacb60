"""Frames that come twice along the time of an operation, in linear time; how alike frames are at all.

A threshold is a cosine of embeddings. It does not carry over from one backbone to another, so it is either given or
taken from the similarities of the data themselves; `Calibration` shows these.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from surgdino.curation.embeddings import at, blocks_of
from surgdino.curation.neighbours import nearest
from surgdino.curation.pieces import HERE, Searchers

_GAPS = (1.0, 5.0, 30.0)  # seconds between the frames of a pair
_PAIRS = 20_000  # that a distribution is drawn from
_WINDOW = 64  # kept frames that a new one is compared with


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


def along_time(embeddings: np.ndarray, rows: np.ndarray, operation_of: np.ndarray, threshold: float) -> np.ndarray:
    """int64 [m]: for each of `rows` the kept frame of its operation that stands for it; itself where it is kept.

    A frame is kept if no kept frame among the last 64 of its operation is at least as near as `threshold`.

    Args:
        embeddings: unit vectors [n, D].
        rows: int64 [m], in the order of time.
        operation_of: int [n].
    """
    stands_for = rows.copy()
    ordered = np.argsort(operation_of[rows], kind="stable")
    edges = np.flatnonzero(np.diff(operation_of[rows[ordered]], prepend=-1, append=-1))
    for start, stop in pairwise(edges):
        places = ordered[start:stop]  # of one operation
        kept = np.empty(_WINDOW, np.int64)
        recent = np.empty((_WINDOW, embeddings.shape[1]), np.float32)  # of `kept`; both are rings
        count = 0
        for part, block in blocks_of(embeddings, rows[places]):
            for place, vector in zip(places[part].tolist(), block, strict=True):
                cosines = recent[:count] @ vector
                nearest_one = int(cosines.argmax()) if count else 0
                if count and cosines[nearest_one] >= threshold:
                    stands_for[place] = kept[nearest_one]
                    continue
                recent[count % _WINDOW], kept[count % _WINDOW] = vector, rows[place]
                count += 1
    return stands_for


def nearest_of(embeddings: np.ndarray, others: np.ndarray, seed: int, searchers: Searchers = HERE) -> np.ndarray:
    """float32 [n]: the largest cosine of each frame with any of `others` [m, D]."""
    return nearest(others, embeddings, 1, seed=seed, searchers=searchers).cosines[:, 0]
