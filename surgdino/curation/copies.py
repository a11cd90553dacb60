"""Recordings that show what another one shows: another encoding, another size, an excerpt.

Features cannot tell a copied frame from the next second of the same scene; prints and time can. Frames of two videos
whose prints are nearly the same vote for the time between them; where enough of them agree, the stretch is a copy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import faiss
import numpy as np

from surgdino.frames.prints import BYTES, Prints

_DIFFERING = 30  # of 255 bits: the limit below which `recognise` is sure
_VARIANTS = (0, 4, 8)  # a copy with a border cut off meets the original's print with margins
_NEAREST = 32
_EXACT = 200_000
_PER_CELL, _ITERATIONS = 32, 4  # beyond that: prints that a cell is trained on, and how often
_AT_ONCE = 1 << 16  # prints that are looked up at a time
_LEAST = 5  # frames that agree
_AGREE = 1.0  # seconds


@dataclass(frozen=True)
class Stretch:
    """Video `copy` shows from `start` to `stop` seconds what video `original` shows `later` seconds before that."""

    copy: int
    original: int
    start: float
    stop: float
    later: float


def stretches(videos: Sequence[Prints]) -> list[Stretch]:
    """The copies among videos, each of the first video that shows it."""
    of_video = np.repeat(np.arange(len(videos)), [len(video.times) for video in videos])
    if len(of_video) == 0:
        return []
    bits = np.concatenate([video.bits for video in videos])
    times = np.concatenate([video.times for video in videos])
    index = _index(np.ascontiguousarray(bits[:, 0]))
    parts = []
    for variant, start in product(_VARIANTS, range(0, len(bits), _AT_ONCE)):
        asked = np.ascontiguousarray(bits[start : start + _AT_ONCE, variant])
        differing, found = index.search(asked, min(_NEAREST, len(bits)))
        row, place = np.nonzero((differing <= _DIFFERING) & (found >= 0))
        differing, row, other = differing[row, place], row + start, found[row, place]
        # The nearest of each other video: its neighbours in time are near too.
        order = np.lexsort((differing, of_video[other], row))
        row, other = row[order], other[order]
        first = np.insert((np.diff(row) != 0) | (np.diff(of_video[other]) != 0), 0, True)[: len(row)]
        first &= of_video[row] != of_video[other]
        parts.append(np.stack([np.maximum(row, other), np.minimum(row, other)], 1)[first])
    pairs = np.unique(np.concatenate(parts), axis=0)
    videos_of = of_video[pairs]
    result = []
    for copy, original in np.unique(videos_of, axis=0).tolist():
        met = pairs[(videos_of == (copy, original)).all(1)]
        result += _agreeing(copy, original, times[met[:, 0]], times[met[:, 1]])
    return result


def _index(bits: np.ndarray) -> faiss.IndexBinary:
    if len(bits) <= _EXACT:
        index: faiss.IndexBinary = faiss.IndexBinaryFlat(8 * BYTES)
    else:
        cells = faiss.IndexBinaryFlat(8 * BYTES)
        count = 4 * round(math.sqrt(len(bits)))
        index = faiss.IndexBinaryIVF(cells, 8 * BYTES, count)
        index.own_fields, index.nprobe = True, 16
        index.cp.niter, index.cp.min_points_per_centroid = _ITERATIONS, 1
        cells.this.disown()  # type: ignore[attr-defined]
        index.train(bits[:: max(1, len(bits) // (_PER_CELL * count))])
    index.add(bits)
    return index


def _agreeing(copy: int, original: int, at: np.ndarray, shown: np.ndarray) -> list[Stretch]:
    """Stretches whose frames agree on the time between, the longest first, each pair of frames in one of them."""
    result, apart = [], at - shown
    while len(apart) >= _LEAST:
        ordered = np.sort(apart)
        counts = np.searchsorted(ordered, ordered + _AGREE, side="right") - np.arange(len(ordered))
        best = int(counts.argmax())
        inside = (apart >= ordered[best]) & (apart <= ordered[best] + _AGREE)
        if len(np.unique(at[inside].round())) < _LEAST:
            break
        later = float(np.median(apart[inside]))
        # Two excerpts joined end to end have the same distance only by chance; a long gap ends a stretch.
        moments = np.unique(at[inside])
        for part in np.split(moments, np.flatnonzero(np.diff(moments) > 10) + 1):
            if len(part) >= _LEAST:
                result.append(Stretch(copy, original, float(part[0]), float(part[-1]), later))
        at, apart = at[~inside], apart[~inside]
    return result


def copied(found: Sequence[Stretch], times: np.ndarray, video_of: np.ndarray) -> np.ndarray:
    """int64 [n]: for each frame the frame of the original that it shows again; itself where it is no copy.

    Args:
        times: float64 [n], seconds, ascending within a video.
        video_of: int [n], the number of each frame's video, ascending.
    """
    stands_for = np.arange(len(times))
    starts = np.searchsorted(video_of, np.arange(video_of[-1] + 2)) if len(video_of) else np.zeros(1, np.int64)
    # Between two prints and just outside the outermost ones frames are copied too, but for what another stretch shows.
    for stretch, margin in [(each, 0.0) for each in found] + [(each, 1.0) for each in found]:
        first, last = int(starts[stretch.copy]), int(starts[stretch.copy + 1])
        low, high = int(starts[stretch.original]), int(starts[stretch.original + 1])
        step = float(np.median(np.diff(times[low:high]))) if high - low > 1 else 1.0
        here = np.arange(first, last)
        here = here[(times[here] >= stretch.start - margin) & (times[here] <= stretch.stop + margin)]
        wanted = times[here] - stretch.later
        near = low + np.clip(np.searchsorted(times[low:high], wanted), 0, high - low - 1)
        before = np.maximum(near - 1, low)
        near = np.where(np.abs(times[before] - wanted) < np.abs(times[near] - wanted), before, near)
        there = (np.abs(times[near] - wanted) <= 0.6 * step) & (stands_for[here] == here)
        stands_for[here[there]] = near[there]
    while (stands_for[stands_for] != stands_for).any():  # copies of copies
        stands_for = stands_for[stands_for]
    return stands_for
