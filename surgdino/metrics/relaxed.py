"""Relaxed phase metrics: mistakes within ten seconds of a segment's ends are forgiven, in two readings.

The widely copied M2CAI evaluation script means to forgive, in the first t frames of a true segment, the phase before
(late transition), and in its last t frames the phases after (early transition). It does two other things. It finds the
early transitions in the last t frames and then forgives the frames at the same places of the *first* t, whatever they
hold, so that early transitions are not forgiven unless the segment is no longer than t. And it counts every forgiven
or right frame of the union of prediction and truth as a true positive, so that precision and recall pass 1 and are
clipped. A segment's window stands at the video's own start and end too, in both readings.
`script` repeats all this, for comparison with published figures; `corrected` does what is meant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from surgdino.metrics.segmental import segments

Reading = Literal["script", "corrected"]


@dataclass(frozen=True)
class Tolerance:
    """Which predictions are forgiven: per true phase, those in its first (`late`) and in its last frames (`early`)."""

    late: tuple[frozenset[int], ...]
    early: tuple[frozenset[int], ...]

    @classmethod
    def of_offsets(cls, late: Sequence[Sequence[int]], early: Sequence[Sequence[int]]) -> Tolerance:
        """From offsets prediction - truth, per phase, as the script writes them."""
        return cls(*(tuple(frozenset(p + o for o in side[p]) for p in range(len(side))) for side in (late, early)))


# The script's own tables: three kinds of phases, after which the operation may branch or not.
_PLAIN, _BRANCHING, _LAST = ((-1,), (1,)), ((-1,), (1, 2)), ((-1, -2), (1, 2))
TOLERANCES: dict[str, Tolerance] = {
    name: Tolerance.of_offsets([kind[0] for kind in kinds], [kind[1] for kind in kinds])
    for name, kinds in {
        "cholec80": [_PLAIN] * 3 + [_BRANCHING] * 2 + [_LAST] * 2,
        "cholect50": [_PLAIN] * 3 + [_BRANCHING] * 2 + [_LAST] * 2,  # the same phases in the same order
        "m2cai16": [_PLAIN] * 4 + [_BRANCHING] * 2 + [_LAST] * 2,
    }.items()
}


def relax(truth: np.ndarray, prediction: np.ndarray, tolerance: Tolerance, window: int, reading: Reading) -> np.ndarray:
    """The prediction int64 [n] with the truth put in where a mistake is forgiven.

    Args:
        truth, prediction: int [n].
        window: t, in frames; cut to the segment's length where that is shorter.
        reading: `script` forgives the early transitions at the script's places, `corrected` at their own.
    """
    relaxed = prediction.copy()
    runs = segments(truth)
    for start, end, phase in zip(runs.start, runs.end, runs.label, strict=True):
        current = relaxed[start:end]
        width = min(window, len(current))
        first, last = current[:width], current[len(current) - width :]
        first[np.isin(first, list(tolerance.late[phase]))] = phase
        early = np.isin(last, list(tolerance.early[phase]))
        (first if reading == "script" else last)[early] = phase
    return relaxed
