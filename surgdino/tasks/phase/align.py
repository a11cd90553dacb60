"""Features of finished videos on one level: every video's brought to mean 0 and deviation 1 by its own frames.

What videos differ by as a whole (light, camera, patient) stands in every frame's features, and a classifier that was
learnt on a few videos trips over it in the next. No label is needed to take it away, but the whole recording is.
"""

from __future__ import annotations

import numpy as np
from sklearn.preprocessing import StandardScaler

from surgdino.tasks.features.files import FeatureRows
from surgdino.tasks.labelled_frames import LabelledFrames

_BLOCK = 4096  # frames that are read at a time


def level_of(rows: np.ndarray | FeatureRows, span: slice) -> StandardScaler:
    """The mean and deviation of the features [n, D] of the video at `span`; its `transform` takes them away.

    A feature that is the same in all frames keeps its scale. Read block by block: the video need not fit into memory.
    """
    level = StandardScaler()
    for start in range(span.start, span.stop, _BLOCK):
        level.partial_fit(np.asarray(rows[start : min(start + _BLOCK, span.stop)], np.float64))
    return level


def aligned(pooled: np.ndarray, frames: LabelledFrames) -> np.ndarray:
    """float32 [n, D], the features of all frames, each video's on its own level."""
    result = np.empty_like(pooled)
    for place in range(len(frames.videos)):
        span = frames.span(place)
        if span.stop > span.start:
            result[span] = level_of(pooled, span).transform(pooled[span])
    return result
