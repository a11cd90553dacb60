"""Whether frames of one moment are more alike than frames of the same operation at another time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import torch.nn.functional as F

from surgdino.engine.probing.frames import ProbeFrames
from surgdino.engine.probing.measures import NO_LABELS, Finding, Measure, Probe
from surgdino.engine.probing.view import View

FAR_SECONDS = 30.0


class Moments(Probe):
    """Temporal retrieval within an operation."""

    order = 30
    measures: ClassVar = {"moment_alignment": Measure("nearby frames more alike than far ones", chooses=NO_LABELS)}

    def find(self, view: View) -> Iterator[Finding]:
        """Temporal retrieval within an operation, as the area under the ROC curve: 0.5 by chance, at most 1.

        For a frame, the share of pairs (a frame of the same moment, a frame of the same video far from it) of which the
        first is the more alike by the class tokens' cosine; the mean over an operation's frames. The same moment is
        within 5 s, or one and a half frames of a store that keeps fewer; far is 30 s or more. In a short video they are
        an eighth and a quarter of its length.
        """
        frames = view.tested_frames
        unit = F.normalize(view.cls, dim=-1).double()
        similarity = (unit @ unit.T).cpu().numpy()
        values: dict[str, float] = {}
        counted = 0
        for operation, rows in frames.of(np.arange(len(frames))).items():
            areas = [area for video in np.unique(frames.videos[rows]) for area in _areas(frames, similarity, video)]
            counted += len(areas)
            values |= {operation: float(np.mean(areas))} if areas else {}
        if values:
            yield Finding.over("moment_alignment", values, counted)


def _areas(frames: ProbeFrames, similarity: np.ndarray, video: str) -> Iterator[float]:
    rows = np.flatnonzero(frames.videos == video)
    times = frames.times[rows]
    near = min(frames.near, np.ptp(times) / 8)
    far = min(max(FAR_SECONDS, 2 * near), np.ptp(times) / 4)
    apart = np.abs(times[:, None] - times[None, :])
    for place, row in enumerate(rows):
        alike = similarity[row, rows]
        close = alike[(apart[place] <= near) & (np.arange(len(rows)) != place)]
        distant = alike[apart[place] >= far]
        if len(close) and len(distant) and near > 0:
            yield float(np.mean((close[:, None] > distant) + 0.5 * (close[:, None] == distant)))
